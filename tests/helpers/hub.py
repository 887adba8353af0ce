"""A local hub that serves the requests of huggingface_hub to create, list and commit."""

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_of_this_test"


class Hub:
    """Repositories as mappings of file names to contents; records all calls in order."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.created: list[dict[str, Any]] = []
        self.messages: list[str] = []
        self.calls: list[str] = []
        self.allowed = True
        self.url = ""

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any, dict[str, str]]:
        self.calls.append(f"{method} {path}")
        parts = path.strip("/").split("/")
        if path == "/api/repos/create":
            if not self.allowed:
                return 403, {"error": "Forbidden"}, {}
            return self._create(json.loads(body))
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}, {}
        if parts[0] == "api" and len(parts) >= 4:
            repo = "/".join(parts[1:4])
            if repo not in self.repos:
                return 404, {"error": "Repository not found"}, {"X-Error-Code": "RepoNotFound"}
            return self._repository(repo, parts[4:], body)
        if "resolve" in parts:
            index = parts.index("resolve")
            data = self.repos["/".join(parts[:index])]["/".join(parts[index + 2 :])]
            etag = hashlib.sha1(data).hexdigest()
            return 200, data, {"ETag": f'"{etag}"', "X-Repo-Commit": "a" * 40}
        return 404, {"error": f"no {path}"}, {}

    def _create(self, request: dict[str, Any]) -> tuple[int, Any, dict[str, str]]:
        name = f"{request['organization']}/{request['name']}"
        repo = f"{request['type']}s/{name}"
        if repo in self.repos:
            return 409, {"error": "You already created this repo", "url": f"{self.url}/{repo}"}, {}
        self.created.append(request)
        self.repos[repo] = {".gitattributes": b"", "README.md": b"---\n---\n"}
        return 200, {"url": f"{self.url}/{repo}", "name": name}, {}

    def _repository(
        self, repo: str, action: list[str], body: bytes
    ) -> tuple[int, Any, dict[str, str]]:
        files = self.repos[repo]
        if action[:1] == ["preupload"]:
            mode = {"uploadMode": "regular", "shouldIgnore": False, "oid": None}
            modes = [{"path": file["path"], **mode} for file in json.loads(body)["files"]]
            return 200, {"files": modes}, {}
        if action[:1] == ["commit"]:
            for line in body.decode().splitlines():
                self._commit(files, json.loads(line))
            return 200, {"commitUrl": f"{self.url}/{repo}/commit/b", "commitOid": "b" * 40}, {}
        if action[:1] == ["tree"]:
            return 200, [
                {"type": "file", "path": name, "size": len(data), "oid": "c" * 40}
                for name, data in files.items()
            ], {}  # fmt: skip
        siblings = [{"rfilename": name} for name in files]
        return 200, {"id": repo.split("/", 1)[1], "sha": "a" * 40, "siblings": siblings}, {}

    def _commit(self, files: dict[str, bytes], line: dict[str, Any]) -> None:
        value = line["value"]
        if line["key"] == "header":
            self.messages.append(value["summary"])
        elif line["key"] == "file":
            assert value["encoding"] == "base64"
            files[value["path"]] = base64.b64decode(value["content"])
        elif line["key"] == "deletedFile":
            del files[value["path"]]
        else:
            raise AssertionError(line["key"])


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a ``Hub`` on a local port."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunks()
            status, value, headers = 401, {"error": "Invalid credentials"}, {}
            if self.headers.get("Authorization") == f"Bearer {TOKEN}":
                path = unquote(urlsplit(self.path).path)
                status, value, headers = hub.answer(self.command, path, body)
            data = value if isinstance(value, bytes) else json.dumps(value).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, text in headers.items():
                self.send_header(name, text)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

        def _chunks(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_POST = do_HEAD = _any

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
