#!/bin/bash
# Many small loops of arithmetic in one function: what takes the time when numba compiles them?
#
# Guess: LLVM, since everything is inlined, unrolled and vectorised there; numba's own passes over a few hundred lines are a small part.
# Seen (numba 0.68.1, llvmlite 0.50.0, numpy 2.4.6; 150 loops of the form w[i] = w[i - 64] * c[i] + w[j], 64 rounds each):
#     numba.njit 9.1 s of processor time; LLVM's optimiser and code generator at level 3 for the text of the same loops 2.8 s;
#     a call takes 5.3 and 6.5 us
#   So two thirds of the time go into passes before LLVM sees anything.
#   So for code that is made by a program, the text of LLVM handed to llvmlite is the quicker way, and needs no import of numba.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/pip install --quiet numba==0.68.1 llvmlite==0.50.0 numpy==2.4.6
cat > loops.py <<'PY'
import ctypes
import time

import numba
import numpy as np
from llvmlite import binding as llvm

LOOPS, N = 150, 64
lines = ["def f(w, c):"]
for k in range(1, LOOPS + 1):
    lines.append(f"    for i in range({N}):")
    lines.append(f"        w[{k * N} + i] = w[{(k - 1) * N} + i] * c[{(k % 7) * N} + i] + w[i]")
lines.append(f"    return w[{LOOPS * N}]")
space = {}
exec("\n".join(lines), space)

text = ["define double @f(double* noalias %w, double* noalias %c) {", "entry:", "  br label %loop1"]
for k in range(1, LOOPS + 1):
    before = "entry" if k == 1 else f"loop{k - 1}"
    after = "end" if k == LOOPS else f"loop{k + 1}"
    text += [
        f"loop{k}:",
        f"  %i{k} = phi i64 [0, %{before}], [%n{k}, %loop{k}]",
        f"  %s{k} = add nsw i64 %i{k}, {(k - 1) * N}",
        f"  %p{k} = getelementptr inbounds double, double* %w, i64 %s{k}",
        f"  %x{k} = load double, double* %p{k}",
        f"  %t{k} = add nsw i64 %i{k}, {(k % 7) * N}",
        f"  %q{k} = getelementptr inbounds double, double* %c, i64 %t{k}",
        f"  %y{k} = load double, double* %q{k}",
        f"  %r{k} = getelementptr inbounds double, double* %w, i64 %i{k}",
        f"  %z{k} = load double, double* %r{k}",
        f"  %m{k} = fmul double %x{k}, %y{k}",
        f"  %a{k} = fadd double %m{k}, %z{k}",
        f"  %u{k} = add nsw i64 %i{k}, {k * N}",
        f"  %o{k} = getelementptr inbounds double, double* %w, i64 %u{k}",
        f"  store double %a{k}, double* %o{k}",
        f"  %n{k} = add nsw i64 %i{k}, 1",
        f"  %d{k} = icmp slt i64 %n{k}, {N}",
        f"  br i1 %d{k}, label %loop{k}, label %{after}",
    ]
text += ["end:", f"  %last = getelementptr inbounds double, double* %w, i64 {LOOPS * N}", "  %e = load double, double* %last"]
text += ["  ret double %e", "}"]

numba.njit("float64(float64[::1])")(lambda x: x[0])  # what is done once, before
begin = time.process_time()
function = numba.njit("float64(float64[::1], float64[::1])")(space["f"])
by_numba = time.process_time() - begin

llvm.initialize_native_target()
llvm.initialize_native_asmprinter()
machine = llvm.Target.from_default_triple().create_target_machine(
    cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=3, jit=True
)
begin = time.process_time()
module = llvm.parse_assembly("\n".join(text))
options = llvm.create_pipeline_tuning_options(speed_level=3)
options.loop_vectorization = options.slp_vectorization = True
builder = llvm.create_pass_builder(machine, options)
builder.getModulePassManager().run(module, builder)
engine = llvm.create_mcjit_compiler(module, machine)
engine.finalize_object()
by_llvm = time.process_time() - begin

rng = np.random.default_rng(0)
w, c = np.zeros((LOOPS + 1) * N), rng.random(7 * N)
w[:N] = rng.random(N)
v = w.copy()
call = ctypes.PYFUNCTYPE(ctypes.c_double, ctypes.c_void_p, ctypes.c_void_p)(engine.get_function_address("f"))
same = abs(function(w, c) - call(v.ctypes.data, c.ctypes.data)) < 1e-12 * abs(w[-N])


def best(f):
    times = []
    for _ in range(9):
        begin = time.perf_counter()
        for _ in range(2000):
            f()
        times.append((time.perf_counter() - begin) / 2000 * 1e6)
    return min(times)


a, b = best(lambda: function(w, c)), best(lambda: call(v.ctypes.data, c.ctypes.data))
print(f"numba {by_numba:.2f} s, LLVM {by_llvm:.2f} s, ratio {by_numba / by_llvm:.1f}; a call {a:.1f} and {b:.1f} us; same result: {same}")
assert same and by_numba > 2 * by_llvm and 0.3 < a / b < 3
PY
venv/bin/python -W ignore loops.py
