"""The real program on a fresh data directory, and a client made of the interfaces that others get too.

Invariant: nothing here knows more than the README tells; its documents and commands are the README's own.
"""

import atexit
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import grpc
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SERVICE_CONFIG = (ROOT / "proto" / "service-config.json").read_text(encoding="utf-8")

# A debug build on a busy machine is slow; a server that needs longer than this is broken.
WITHIN_SECS = 60
# More than any method's own deadline.
CALL_SECS = 10

# google.rpc's error details, as far as they are looked at: the packages that carry them are not needed for this.
ERROR_DETAILS = """
syntax = "proto3";
package google.rpc;
import "google/protobuf/any.proto";
import "google/protobuf/duration.proto";
message Status { int32 code = 1; string message = 2; repeated google.protobuf.Any details = 3; }
message ErrorInfo { string reason = 1; string domain = 2; map<string, string> metadata = 3; }
message RetryInfo { google.protobuf.Duration retry_delay = 1; }
message BadRequest {
  message FieldViolation { string field = 1; string description = 2; }
  repeated FieldViolation field_violations = 1;
}
"""


def scratch(name):
    """A folder that is gone when the tests are."""
    folder = Path(tempfile.mkdtemp(prefix=f"doseline-{name}-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def generate():
    """Makes the client of proto/ and lets it be imported; returns its folder."""
    folder = scratch("client")
    (folder / "error_details.proto").write_text(ERROR_DETAILS, encoding="utf-8")
    well_known = Path(protoc.__file__).parent / "_proto"
    ours = sorted(str(path) for path in (ROOT / "proto").rglob("*.proto"))
    status = protoc.main([
        "protoc", f"-I{ROOT / 'proto'}", f"-I{folder}", f"-I{well_known}",
        f"--python_out={folder}", f"--grpc_python_out={folder}", *ours, str(folder / "error_details.proto"),
    ])
    if status != 0:
        raise AssertionError(f"protoc ended with {status}")
    sys.path.insert(0, str(folder))
    return folder


CLIENT = generate()
details = importlib.import_module("error_details_pb2")


def messages(area):
    """The messages of an area, such as `booking`."""
    return importlib.import_module(f"doseline.{area}.v1.{area}_service_pb2")


def stubs(area):
    """The stubs of an area."""
    return importlib.import_module(f"doseline.{area}.v1.{area}_service_pb2_grpc")


availability, booking, identity, room = map(messages, ("availability", "booking", "identity", "room"))


def program():
    """The program under test; that there is none is a failure."""
    given = os.environ.get("DOSELINE_BIN")
    if given:
        candidates = [Path(given)]
    else:
        target = Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
        candidates = [target / "release" / "doseline", target / "debug" / "doseline"]
    built = [candidate for candidate in candidates if candidate.is_file()]
    if built:
        # An older one of the other profile is not what is under test.
        return max(built, key=lambda candidate: candidate.stat().st_mtime).resolve()
    raise AssertionError(f"there is no doseline at {' or '.join(map(str, candidates))}: build it first")


def readme_block(title, language):
    """The block of code that follows the line `title` in the README."""
    found = re.search(rf"^{re.escape(title)}\n+```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    if found is None:
        raise AssertionError(f"the README has no block of {language} after {title!r}")
    return found[1]


class Refused(Exception):
    """What a call was refused with."""

    def __init__(self, error):
        super().__init__(f"{error.code()}: {error.details()}")
        self.code = error.code()
        self.info, self.retry_secs, self.fields = None, None, {}
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                self._read(details.Status.FromString(value))

    @property
    def reason(self):
        """The code that clients switch on."""
        return self.info.reason if self.info else None

    def _read(self, status):
        for packed in status.details:
            info, retry, bad = details.ErrorInfo(), details.RetryInfo(), details.BadRequest()
            if packed.Unpack(info):
                self.info = info
            elif packed.Unpack(retry):
                self.retry_secs = retry.retry_delay.ToNanoseconds() / 1e9
            elif packed.Unpack(bad):
                self.fields = {one.field: one.description for one in bad.field_violations}


class Server:
    """`doseline serve --dev` on ports of its own choice; may be killed and started again on the same data."""

    def __init__(self):
        self.folder = scratch("served")
        self.data = self.folder / "by-hand"
        # The README says `doseline`: here that is the program under test.
        (self.folder / "bin").mkdir()
        (self.folder / "bin" / "doseline").symlink_to(program())
        for name in ("campaign.json", "clinics.json"):
            (self.folder / name).write_text(readme_block(f"`{name}`:", "json"), encoding="utf-8")
        self.process = self.channel = self.ready = None
        self.starts = 0
        self.start()

    def start(self):
        """Starts it and waits until it is ready."""
        self.starts += 1
        log = self.folder / f"serve-{self.starts}.log"
        settings = ('process.telemetry.format="json"', 'serve.server.listen="127.0.0.1:0"',
                    'serve.admin.listen="127.0.0.1:0"', 'serve.web.server.listen="127.0.0.1:0"')
        command = [str(program()), "serve", "--dev", "--data", str(self.data), "--regions", "seoul,busan"]
        for setting in settings:
            command += ["--set", setting]
        with log.open("wb") as out:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
        self.ready = self.await_ready(log)
        self.gateway, self.admin = self.ready["gateway"], self.ready["admin"]
        self.web = f'http://{self.ready["web"]}'
        self.connect()

    def connect(self):
        """A channel as the README advises, and its stubs."""
        options = [("grpc.service_config", SERVICE_CONFIG), ("grpc.enable_retries", 1)]
        self.channel = grpc.insecure_channel(self.gateway, options=options)
        self.identity = stubs("identity").IdentityServiceStub(self.channel)
        self.availability = stubs("availability").AvailabilityServiceStub(self.channel)
        self.booking = stubs("booking").BookingServiceStub(self.channel)
        self.room = stubs("room").RoomServiceStub(self.channel)

    def await_ready(self, log):
        """What the program says of itself when it is ready."""
        until = time.monotonic() + WITHIN_SECS
        while time.monotonic() < until and self.process.poll() is None:
            for line in log.read_text(encoding="utf-8").splitlines():
                if line.startswith("{") and '"message":"ready"' in line:
                    return json.loads(line)
            time.sleep(0.02)
        raise AssertionError(f"not ready:\n{log.read_text(encoding='utf-8')}")

    def await_slots(self, region, count):
        """The slots of a region, as soon as so many are shown."""
        until = time.monotonic() + WITHIN_SECS
        request = availability.ListSlotsRequest(region=region)
        while time.monotonic() < until:
            try:
                slots = self.availability.ListSlots(request, timeout=CALL_SECS).slots
            except grpc.RpcError:
                slots = []
            if len(slots) >= count:
                return slots
            time.sleep(0.05)
        raise AssertionError(f"{count} slots of {region} are not shown")

    def await_admitted(self, permit):
        """Returns when the permit's holder may book."""
        until = time.monotonic() + WITHIN_SECS
        while time.monotonic() < until:
            if self.room.GetPlace(room.GetPlaceRequest(permit=permit), timeout=CALL_SECS).admitted:
                return
            time.sleep(0.05)
        raise AssertionError("nobody is admitted")

    def environment(self):
        """What the README's commands find: the program, the ports, the generated client."""
        path = os.pathsep.join([str(self.folder / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]])
        ours = {name: value for name, value in os.environ.items() if not name.startswith("DOSELINE")}
        return ours | {"PATH": path, "DOSELINE_GATEWAY": self.gateway, "DOSELINE_ADMIN": self.admin,
                       "PYTHONPATH": str(CLIENT)}

    def run(self, *command):
        """Runs a command in the server's folder; returns what it prints."""
        done = subprocess.run(command, cwd=self.folder, env=self.environment(), capture_output=True, text=True,
                              stdin=subprocess.DEVNULL, timeout=WITHIN_SECS, check=False)
        if done.returncode != 0:
            raise AssertionError(f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}")
        return done.stdout

    def doseline(self, *arguments):
        """Runs the command line; returns the JSON it prints."""
        return json.loads(self.run("doseline", *arguments))

    def assertion(self, sub, birthdate="1975-03-02"):
        """An assertion of the development provider."""
        command = ("dev-assertion", "--data", str(self.data), "--sub", sub, "--birthdate", birthdate)
        return self.run("doseline", *command).strip()

    def permit(self, sub, birthdate="1975-03-02", region="seoul"):
        """A person's permit, or the refusal raised."""
        request = identity.IssuePermitRequest(
            campaign="spring-2031", region=region, assertion=self.assertion(sub, birthdate))
        return asked(self.identity.IssuePermit, request)

    def kill(self):
        """Ends it without a word, as a power cut would."""
        self.channel.close()
        self.process.kill()
        self.process.wait()

    def stop(self):
        """Ends it in order."""
        self.channel.close()
        self.process.terminate()
        try:
            return self.process.wait(timeout=WITHIN_SECS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise


def asked(method, request):
    """The answer, or the refusal raised as `Refused`."""
    try:
        return method(request, timeout=CALL_SECS)
    except grpc.RpcError as error:
        raise Refused(error) from None
