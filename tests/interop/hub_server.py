"""A hub in memory: the endpoints that pushing an export and loading it use, on this machine."""

import base64
import hashlib
import http.server
import json
import re
import threading
import urllib.parse


class Hub:
    """Repositories {name: [{file: bytes} of each commit]}; a commit's name is 40 times its number.

    Attributes:
      repositories: what was pushed.
      downloads: paths of the files that were given out.
    """

    def __init__(self, token):
        self.repositories, self.downloads, self._token = {}, [], token
        hub = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def answer(self, method):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                allowed = self.headers.get("Authorization") == f"Bearer {token}"
                path = urllib.parse.unquote(self.path.partition("?")[0])
                status, headers, content = hub.respond(method, path, body, allowed)
                self.send_response(status)
                for name, value in {"Content-Length": str(len(content)), **headers}.items():
                    self.send_header(name, value)
                self.end_headers()
                if method != "HEAD":
                    self.wfile.write(content)

            def do_GET(self):
                self.answer("GET")

            def do_HEAD(self):
                self.answer("HEAD")

            def do_POST(self):
                self.answer("POST")

            def log_message(self, *message):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def respond(self, method, path, body, allowed):
        """(status, headers, content)."""
        if method == "POST":
            return self._post(path, body) if allowed else failure(401, "Unauthorized")
        found = re.fullmatch(r"/api/models/(\w+/\w+)(?:/revision/(\w+))?", path)
        if found:
            return self._with_commit(found[1], found[2], lambda sha, files: as_json(info(found[1], sha, files)))
        found = re.fullmatch(r"/api/models/(\w+/\w+)/tree/(\w+)", path)
        if found:
            return self._with_commit(found[1], found[2], lambda sha, files: as_json(tree(files)))
        found = re.fullmatch(r"/(\w+/\w+)/resolve/(\w+)/(.+)", path)
        if found:
            return self._with_commit(
                found[1], found[2], lambda sha, files: self._file(method, sha, files, found[3])
            )
        return failure(404, "EntryNotFound")

    def _with_commit(self, name, revision, answer):
        commits = self.repositories.get(name)
        if not commits:
            return failure(404, "RepoNotFound")
        names = {str(i) * 40: i for i in range(len(commits))} | {"main": len(commits) - 1, None: len(commits) - 1}
        if revision not in names:
            return failure(404, "RevisionNotFound")
        return answer(str(names[revision]) * 40, commits[names[revision]])

    def _file(self, method, sha, files, name):
        if name not in files:
            return failure(404, "EntryNotFound")
        if method == "GET":
            self.downloads.append(name)
        headers = {"ETag": f'"{sha1(files[name])}"', "X-Repo-Commit": sha, "Accept-Ranges": "bytes"}
        return 200, headers, files[name]

    def _post(self, path, body):
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization') or 'me'}/{asked['name']}"
            self.repositories.setdefault(name, [])
            return as_json({"url": f"{self.url}/{name}", "id": name})
        if path == "/api/validate-yaml":
            return as_json({"errors": [], "warnings": []})
        found = re.fullmatch(r"/api/models/(\w+/\w+)/(preupload|commit)/main", path)
        if not found or found[1] not in self.repositories:
            return failure(404, "RepoNotFound")
        if found[2] == "preupload":
            names = [file["path"] for file in json.loads(body)["files"]]
            return as_json({"files": [{"path": n, "uploadMode": "regular", "shouldIgnore": False} for n in names]})
        records = [json.loads(line) for line in body.splitlines()]
        files = {r["value"]["path"]: base64.b64decode(r["value"]["content"]) for r in records if r["key"] == "file"}
        commits = self.repositories[found[1]]
        commits.append((commits[-1] if commits else {}) | files)
        sha = str(len(commits) - 1) * 40
        url = f"{self.url}/{found[1]}/commit/{sha}"
        return as_json({"success": True, "commitOid": sha, "commitUrl": url, "hookOutput": ""})


def info(name, sha, files):
    facts = {"id": name, "modelId": name, "private": False, "tags": [], "downloads": 0, "likes": 0}
    return facts | {"sha": sha, "siblings": [{"rfilename": file} for file in files]}


def tree(files):
    return [{"type": "file", "path": n, "size": len(c), "oid": sha1(c)} for n, c in files.items()]


def sha1(content):
    return hashlib.sha1(content).hexdigest()


def as_json(content):
    return 200, {"Content-Type": "application/json"}, json.dumps(content).encode()


def failure(status, code):
    return status, {"X-Error-Code": code, "X-Error-Message": code}, b"{}"
