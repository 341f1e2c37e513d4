"""A small Hugging Face Hub of one process: what huggingface_hub asks to make, fill and read a repository of models."""

import base64
import contextlib
import hashlib
import http.server
import json
import re
import threading
import urllib.parse


class FakeHub(http.server.ThreadingHTTPServer):
    """The repositories, and what was asked: `asked` holds (method, path, headers)."""

    def __init__(self):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repositories, self.stored, self.asked = {}, {}, []
        self.url = f"http://127.0.0.1:{self.server_port}"

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()

    def commit(self, repository, files):
        """Adds {name: bytes} to a repository, and returns the commit's number."""
        commits = self.repositories[repository]
        number = hashlib.sha1(f"{repository} {len(commits)}".encode()).hexdigest()
        commits[number] = {**(list(commits.values())[-1] if commits else {}), **files}
        return number


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _answer(self, status=200, content=b"", **headers):
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _route(self):
        path = urllib.parse.unquote(urllib.parse.urlsplit(self.path).path)
        self.server.asked.append((self.command, path, dict(self.headers)))
        body = self._body()
        for method, pattern, answer in (
            ("GET HEAD", r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", self._file),
            ("POST", r"/api/repos/create", self._create),
            ("POST", r"/api/validate-yaml", lambda _: self._answer(content={})),
            ("POST", r"/api/models/([^/]+/[^/]+)/preupload/main", self._upload_modes),
            ("POST", r"/([^/]+/[^/]+)\.git/info/lfs/objects/batch", self._places),
            ("PUT", r"/upload/(\w+)", self._store),
            ("POST", r"/api/models/([^/]+/[^/]+)/commit/main", self._commit),
        ):
            if self.command in method.split() and (match := re.fullmatch(pattern, path)):
                return answer(body, *match.groups())
        return self._answer(404, {"error": f"no {path}"})

    do_GET = do_HEAD = do_POST = do_PUT = _route

    def _file(self, _, repository, revision, name):
        commits = self.server.repositories.get(repository)
        if commits is None:
            return self._answer(401, X_Error_Code="RepoNotFound")
        number = list(commits)[-1] if revision == "main" else revision
        if number not in commits:
            return self._answer(404, X_Error_Code="RevisionNotFound")
        content = commits[number].get(name)
        if content is None:
            return self._answer(404, X_Error_Code="EntryNotFound", X_Repo_Commit=number)
        return self._answer(content=content, X_Repo_Commit=number, ETag=f'"{hashlib.sha256(content).hexdigest()}"')

    def _create(self, body):
        asked = json.loads(body)
        if self.headers.get("Authorization") != "Bearer hf_test":
            return self._answer(401, {"error": "Invalid username or password."})
        name = f"{asked['organization']}/{asked['name']}"
        if name in self.server.repositories:
            return self._answer(409, {"error": "exists", "url": f"{self.server.url}/{name}"})
        self.server.repositories[name] = {}
        self.server.private = "private" in (asked.get("visibility"), asked.get("private") and "private")
        return self._answer(content={"url": f"{self.server.url}/{name}"})

    def _upload_modes(self, body, _):
        modes = {"safetensors": "lfs"}
        return self._answer(
            content={
                "files": [
                    {"path": file["path"], "uploadMode": modes.get(file["path"].rpartition(".")[2], "regular"),
                     "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
            }
        )  # fmt: skip

    def _places(self, body, _):
        objects = [
            {**one, "actions": {"upload": {"href": f"{self.server.url}/upload/{one['oid']}"}}}
            for one in json.loads(body)["objects"]
        ]
        return self._answer(
            content={"transfer": "basic", "objects": objects}, Content_Type="application/vnd.git-lfs+json"
        )

    def _store(self, body, oid):
        self.server.stored[oid] = body
        return self._answer()

    def _commit(self, body, repository):
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.stored[value["oid"]]
        number = self.server.commit(repository, files)
        url = f"{self.server.url}/{repository}/commit/{number}"
        return self._answer(content={"success": True, "commitOid": number, "commitUrl": url})
