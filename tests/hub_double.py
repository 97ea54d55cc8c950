"""A hub on 127.0.0.1: as much of Hugging Face's protocol as its own client asks for to upload and download a model."""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

SHA = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """Holds one revision of each repository; stops with the `with` block."""

    def __init__(self):
        self.files: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.tokens: set[str | None] = set()
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        path, data = self._begin()
        body = json.loads(data) if "/commit/" not in path else {}
        if path == "/api/repos/create":
            name = f"{body['organization']}/{body['name']}" if body.get("organization") else body["name"]
            self.hub.files.setdefault(name, {})
            self.hub.private[name] = body.get("private") or body.get("visibility") == "private"
            self._json({"url": f"{self.hub.address}/{name}"})
        elif path == "/api/validate-yaml":
            self._json({"errors": [], "warnings": []})
        elif "/preupload/" in path:
            self._json(
                {"files": [{"path": f["path"], "uploadMode": "regular", "shouldIgnore": False} for f in body["files"]]}
            )
        elif "/commit/" in path:
            name = path.removeprefix("/api/models/").rsplit("/commit/", 1)[0]
            for line in data.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    self.hub.files[name][entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            self._json({"commitUrl": f"{self.hub.address}/{name}/commit/{SHA}", "commitOid": SHA})
        else:
            self._json({"error": "unknown"}, 404)

    def do_GET(self):
        path, _ = self._begin()
        name = path.removeprefix("/api/models/").split("/revision/")[0].split("/tree/")[0]
        if "/resolve/" in path:
            name, _, rest = path[1:].partition("/resolve/")
            self._file(self.hub.files.get(name, {}).get(rest.partition("/")[2]))
        elif name not in self.hub.files:
            self._json({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        elif "/tree/" in path:
            listed = [
                {"type": "file", "path": each, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for each, data in self.hub.files[name].items()
            ]
            self._json(listed)
        else:
            siblings = [{"rfilename": each} for each in self.hub.files[name]]
            self._json({"id": name, "sha": SHA, "siblings": siblings, "private": True, "tags": [], "downloads": 0})

    do_HEAD = do_GET

    def _begin(self):
        length = self.headers.get("Content-Length")
        data = self.rfile.read(int(length)) if length else self._chunks()
        self.hub.tokens.add(self.headers.get("Authorization"))
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append(f"{self.command} {path}")
        return path, data

    def _chunks(self) -> bytes:
        data = b""
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        return data

    def _json(self, value, status=200, headers=None):
        self._send(json.dumps(value).encode(), status, {"Content-Type": "application/json", **(headers or {})})

    def _file(self, data):
        if data is None:
            self._json({"error": "Entry not found"}, 404, {"X-Error-Code": "EntryNotFound"})
            return
        tag = hashlib.sha256(data).hexdigest()
        self._send(data, 200, {"ETag": f'"{tag}"', "X-Repo-Commit": SHA, "Content-Type": "application/octet-stream"})

    def _send(self, data, status, headers):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def log_message(self, *_):
        pass
