"""A local http server that can be told to misbehave."""

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Files:
    """What the server holds and how it behaves; `log` keeps the Range header of every request."""

    def __init__(self):
        self.content, self.tag, self.log = {}, '"v1"', []
        self.cut_after = []  # number of bytes after which each of the next answers breaks off
        self.ranges = True
        self.status = []  # statuses of the next answers
        self.content_type = "application/octet-stream"
        self.lie_about_start = 0


@contextmanager
def serving():
    files = Files()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            asked = self.headers.get("Range")
            files.log.append(asked)
            if files.status:
                self.send_error(files.status.pop(0))
                return
            body = files.content.get(self.path)
            if body is None:
                self.send_error(404)
                return
            start = 0
            if files.ranges and asked and self.headers.get("If-Range") == files.tag:
                start = int(asked.removeprefix("bytes=").rstrip("-"))
                if start >= len(body):
                    self.send_response(416)
                    self.send_header("Content-Range", f"bytes */{len(body)}")
                    self.end_headers()
                    return
                self.send_response(206)
                shown = start + files.lie_about_start
                self.send_header("Content-Range", f"bytes {shown}-{len(body) - 1}/{len(body)}")
            else:
                self.send_response(200)
            part = body[start:]
            self.send_header("Content-Length", str(len(part)))
            self.send_header("Content-Type", files.content_type)
            if files.tag:
                self.send_header("ETag", files.tag)
            self.end_headers()
            if files.cut_after:
                self.wfile.write(part[: files.cut_after.pop(0)])
                self.wfile.flush()
                self.close_connection = True
                self.connection.close()
                return
            self.wfile.write(part)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    files.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield files
    finally:
        server.shutdown()
        server.server_close()
