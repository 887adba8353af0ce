from vlm_harness.cli import main

main()
