"""Task, model, prompt and run specifications: schemas, validation, registry, templates."""
