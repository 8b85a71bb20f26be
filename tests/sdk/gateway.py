"""The gateway as a process, and a receiver of webhooks, for the tests beside this file."""

import http.server
import os
import pathlib
import shutil
import signal
import subprocess
import tempfile
import threading
import time

QUICK = "[tasks]\ndispatch_interval_ms = 50\nsubmit_attempts = 2\n"


def eventually(what, found, deadline=30.0):
    """Asks `found` again and again until it gives something true."""
    until = time.monotonic() + deadline
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError(f"not within {deadline} s: {what}")


class Gateway:
    """A gateway with a data folder of its own."""

    def __init__(self, toml=""):
        self.folder = pathlib.Path(tempfile.mkdtemp())
        (self.folder / "aigateway.toml").write_text(toml + QUICK)
        self.process = None
        self.start()

    def start(self):
        url = self.folder / "url"
        url.unlink(missing_ok=True)
        self.log = (self.folder / "log").open("ab")
        self.process = subprocess.Popen(
            [os.environ["AIG_BIN"], "--data-dir", self.folder, "--listen", "127.0.0.1:0"],
            cwd=self.folder,
            stdout=self.log,
            stderr=self.log,
        )
        eventually("the gateway listens", lambda: url.exists() or self.process.poll() is not None)
        if self.process.poll() is not None:
            raise AssertionError((self.folder / "log").read_text())
        self.url = url.read_text().strip()
        self.key = (self.folder / "first-key").read_text()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.log.close()

    def stop(self):
        self.process.terminate()
        code = self.process.wait(timeout=30)
        self.log.close()
        shutil.rmtree(self.folder)
        assert code == 0, f"the gateway ended with {code}"


class Receiver:
    """Remembers every webhook: its headers and exact bytes."""

    def __init__(self):
        received = self.received = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["content-length"]))
                received.append((dict(self.headers.items()), body))
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()
