"""Machine code: LLVM compiles the text of a program for this processor, once; it is kept on disk for the next time."""

import ctypes
import hashlib
import logging
import os
import sys
from collections.abc import Callable
from ctypes.util import find_library
from functools import cache
from pathlib import Path

from llvmlite import binding as llvm

from latf_openmm.bias.compiled.instructions import LIBRARY_FUNCTIONS
from latf_openmm.bias.compiled.loops import ENTRY
from latf_openmm.errors import BackendError
from latf_openmm.storage import atomic_file

FOLDER_VARIABLE = "LATF_OPENMM_CACHE"
"""Environment variable with the folder that machine code is kept in; default: that of the user's other caches."""

log = logging.getLogger(__name__)
Function = Callable[[int, int], float]
_SPEED = 3
"""Level of optimisation."""
_DIGEST = hashlib.sha256().digest_size
"""Bytes of the hash that a file of machine code begins with."""
_OPEN_TO_OTHERS = 0o022
"""Bits of the mode of a folder in which others may write."""
_ENGINES: list[llvm.ExecutionEngine] = []
"""What holds the machine code of this process; it must outlive every function."""


@cache
def compiled(text: str) -> Function:
    """Return the function ``evaluate(table, n)`` of a program's text, see `loops.instructions`.

    It is called with Python's global lock, so that threads do not share the scratch memory at the same time.

    Raises
    ------
    BackendError
        If LLVM cannot compile for this processor.
    """
    machine = _machine()
    path = _path(text, machine)
    code = _kept(path)
    if code is None:
        code = _compile(text, machine)
        _keep(path, code)
    empty = llvm.parse_assembly("")
    empty.triple = machine.triple
    engine = llvm.create_mcjit_compiler(empty, machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    _ENGINES.append(engine)
    address = engine.get_function_address(ENTRY)
    return ctypes.PYFUNCTYPE(ctypes.c_double, ctypes.c_ssize_t, ctypes.c_ssize_t)(address)


def cache_folder() -> Path:
    """Return the folder in which machine code is kept."""
    if named := os.environ.get(FOLDER_VARIABLE):
        return Path(named)
    root = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(root).expanduser() / "latf-openmm" / "compiled"


@cache
def _initialized() -> None:
    """Make LLVM ready for this processor, and tell it where C's mathematical library is."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    library = ctypes.CDLL("ucrtbase" if sys.platform == "win32" else find_library("m") or None)
    for name in LIBRARY_FUNCTIONS:
        llvm.add_symbol(name, ctypes.cast(getattr(library, name), ctypes.c_void_p).value)


def _machine() -> llvm.TargetMachine:
    _initialized()
    try:
        return llvm.Target.from_default_triple().create_target_machine(
            cpu=llvm.get_host_cpu_name(),
            features=llvm.get_host_cpu_features().flatten(),
            opt=_SPEED,
            jit=True,
        )
    except RuntimeError as error:
        raise BackendError(f"LLVM does not know this processor ({error})") from error


def _compile(text: str, machine: llvm.TargetMachine) -> bytes:
    module = llvm.parse_assembly(text)
    module.triple = machine.triple
    module.data_layout = str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=_SPEED)
    options.loop_vectorization = options.slp_vectorization = True
    builder = llvm.create_pass_builder(machine, options)
    builder.getModulePassManager().run(module, builder)
    return bytes(machine.emit_object(module))


def _path(text: str, machine: llvm.TargetMachine) -> Path:
    """File of the machine code of a text; another processor or version of LLVM has another one."""
    facts = (text, machine.triple, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten())
    named = "\0".join((*facts, str(llvm.llvm_version_info), str(_SPEED)))
    return cache_folder() / f"{hashlib.sha256(named.encode()).hexdigest()}.code"


def _kept(path: Path) -> bytes | None:
    """Machine code of an earlier time, if it is there, is this user's, and is undamaged."""
    try:
        folder, content = path.parent.stat(), path.read_bytes()
    except OSError:
        return None
    others = hasattr(os, "getuid") and (folder.st_uid != os.getuid() or folder.st_mode & _OPEN_TO_OTHERS)
    if others:
        log.warning("%s belongs to, or is open to, another user; what is compiled is not kept", path.parent)
        return None
    digest, code = content[:_DIGEST], content[_DIGEST:]
    return code if hashlib.sha256(code).digest() == digest else None


def _keep(path: Path, code: bytes) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_file(path) as temporary:
            temporary.write_bytes(hashlib.sha256(code).digest() + code)
    except OSError as error:
        log.info("%s: what was compiled is not kept (%s)", path.parent, error.strerror)
