"""Loops, numbers and functions as instructions of LLVM: a thin layer over llvmlite's builder.

Not-a-number goes through every function, so that a broken simulation is seen to be one. Sums may be done in another
order than they are written in, which lets LLVM use wide registers.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from llvmlite import ir

DOUBLE, INTEGER, BIT = ir.DoubleType(), ir.IntType(64), ir.IntType(1)
"""Types of all values."""
DOUBLE_SIZE = 8
"""Bytes of a number."""
FAST = ("reassoc", "nsz", "arcp", "contract")
"""Liberties that change no more than rounding, and keep not-a-number."""
WIDTH = 8
"""Numbers in a vector: the widest registers hold as many, others take two or four for one."""
_VECTOR = ir.VectorType(DOUBLE, WIDTH)
"""Type of a vector."""
_LOG2_E = 1.4426950408889634
"""Logarithm of e to the base 2."""
_LN_2 = (0.693147180369123816490, 1.90821492927058770002e-10)
"""Natural logarithm of 2, as a number with few digits and the rest."""
_MAGIC = 6755399441055744.0
"""1.5 times 2 to the power 52: a number added to it is rounded to an integer, which its last digits hold."""
_BIAS = 1023
"""Exponent of a double whose value is 0."""
_MANTISSA = 52
"""Bits of a double behind those of its exponent."""
_EXP_RANGE = (-708.0, 709.0)
"""Where exponentials are neither 0 nor infinite."""
_EXP_TERMS = 13
"""Terms of the series of an exponential of at most half the logarithm of 2; what is left out is 4e-18."""
_TANH_SERIES = (
    *(1.0, -1 / 3, 2 / 15, -17 / 315, 62 / 2835, -1382 / 155925, 21844 / 6081075, -929569 / 638512875),
    *(6404582 / 10854718875, -443861162 / 1856156927625, 18888466084 / 194896477400625),
)
"""Coefficients of the odd powers of a hyperbolic tangent."""
_TANH_SMALL = 0.25
"""Below it the series is used: what it leaves out is 1e-18 of the value."""
_INTRINSICS = {"log", "sqrt", "sin", "cos", "pow", "fabs", "floor", "ceil", "trunc", "rint"}
"""Functions that LLVM knows itself."""


class Instructions:
    """Writes one function, from its beginning to its end.

    Parameters
    ----------
    function
        With an entry block.
    """

    def __init__(self, function: ir.Function) -> None:
        self.function = function
        self._entry = ir.IRBuilder(function.append_basic_block("entry"))
        body = function.append_basic_block("body")
        self._start = self._entry.branch(body)
        self._entry.position_before(self._start)
        self.builder = ir.IRBuilder(body)

    # --- integers ----------------------------------------------------------------------------------

    def integer(self, value: int) -> ir.Value:
        """Return a constant integer."""
        return ir.Constant(INTEGER, value)

    def plus(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return the sum of integers."""
        return self.builder.add(first, second, flags=("nsw",))

    def times(self, first: ir.Value, factor: int) -> ir.Value:
        """Return an integer times a constant one."""
        return first if factor == 1 else self.builder.mul(first, self.integer(factor), flags=("nsw",))

    @contextmanager
    def loop(self, count: ir.Value, first: ir.Value | None = None) -> Iterator[ir.Value]:
        """Repeat what is written inside for first (default: 0), ..., count - 1; the index is yielded."""
        builder = self.builder
        start = self.integer(0) if first is None else first
        before = builder.block
        inside, after = (self.function.append_basic_block(name) for name in ("loop", "after"))
        builder.cbranch(builder.icmp_signed("<", start, count), inside, after)
        builder.position_at_end(inside)
        index = builder.phi(INTEGER)
        index.add_incoming(start, before)
        yield index
        following = self.plus(index, self.integer(1))
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), inside, after)
        builder.position_at_end(after)

    # --- memory ------------------------------------------------------------------------------------

    def load(self, memory: ir.Value, place: ir.Value) -> ir.Value:
        """Return an element."""
        return self.builder.load(self.builder.gep(memory, [place], inbounds=True))

    def store(self, value: ir.Value, memory: ir.Value, place: ir.Value) -> None:
        """Write an element."""
        self.builder.store(value, self.builder.gep(memory, [place], inbounds=True))

    def variable(self, start: ir.Value) -> ir.Value:
        """Return the address of a variable that is given a value here."""
        address = self._entry.alloca(start.type)
        self.builder.store(start, address)
        return address

    # --- numbers -----------------------------------------------------------------------------------

    def number(self, value: float) -> ir.Value:
        """Return a constant number."""
        return ir.Constant(DOUBLE, value)

    def add(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return first + second."""
        return self.builder.fadd(first, second, flags=FAST)

    def sub(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return first - second."""
        return self.builder.fsub(first, second, flags=FAST)

    def mul(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return first times second."""
        return self.builder.fmul(first, second, flags=FAST)

    def div(self, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return first / second."""
        return self.builder.fdiv(first, second, flags=FAST)

    def call(self, name: str, *values: ir.Value) -> ir.Value:
        """Return what a function of C's mathematical library does."""
        full = f"llvm.{name}.f64" if name in _INTRINSICS else name
        kind = ir.FunctionType(DOUBLE, [DOUBLE] * len(values))
        module = self.function.module
        function = module.globals.get(full) or ir.Function(module, kind, full)
        if name not in _INTRINSICS:
            function.attributes.add("nounwind")
        return self.builder.call(function, values, fastmath=FAST)

    def exp(self, value: ir.Value) -> ir.Value:
        """Return the exponential, by arithmetic alone, so that several are done at a time.

        With n the integer nearest to value / ln 2 it is 2^n exp(value - n ln 2), the latter by its series.
        """
        write = self.builder
        shifted = write.fadd(write.fmul(value, self.number(_LOG2_E)), self.number(_MAGIC))
        n = write.fsub(shifted, self.number(_MAGIC))
        rest = value
        for piece in _LN_2:
            rest = write.fsub(
                rest, write.fmul(n, self.number(piece), flags=("contract",)), flags=("contract",)
            )
        series = self._polynomial(rest, [1 / math.factorial(k) for k in range(_EXP_TERMS + 1)])
        exponent = write.add(write.bitcast(shifted, INTEGER), self.integer(_BIAS))
        power = write.bitcast(write.shl(exponent, self.integer(_MANTISSA)), DOUBLE)
        result = write.fmul(series, power)
        low, high = (self.number(limit) for limit in _EXP_RANGE)
        result = self.chosen(self.compared("<", value, low), self.number(0.0), result)
        return self.chosen(self.compared(">", value, high), self.number(math.inf), result)

    def _polynomial(self, x: ir.Value, coefficients: Sequence[float]) -> ir.Value:
        result = self.number(coefficients[-1])
        for coefficient in coefficients[-2::-1]:
            result = self.add(self.mul(result, x), self.number(coefficient))
        return result

    def tanh(self, value: ir.Value) -> ir.Value:
        """Return the hyperbolic tangent: 1 - 2 / (exp(2 value) + 1), or its series near 0."""
        unity, two = self.number(1.0), self.number(2.0)
        far = self.sub(unity, self.div(two, self.add(self.exp(self.mul(two, value)), unity)))
        near = self.mul(value, self._polynomial(self.mul(value, value), _TANH_SERIES))
        small = self.compared("<", self.call("fabs", value), self.number(_TANH_SMALL))
        return self.chosen(small, near, far)

    # --- vectors -----------------------------------------------------------------------------------

    def vector(self, value: float) -> ir.Value:
        """Return a vector of equal constant numbers."""
        return ir.Constant(_VECTOR, [value] * WIDTH)

    def spread(self, value: ir.Value) -> ir.Value:
        """Return a vector of equal numbers."""
        first = self.builder.insert_element(
            ir.Constant(_VECTOR, ir.Undefined), value, ir.Constant(ir.IntType(32), 0)
        )
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return self.builder.shuffle_vector(first, first, zeros)

    def load_vector(self, memory: ir.Value, place: ir.Value) -> ir.Value:
        """Return neighbouring elements."""
        return self.builder.load(self._vector_at(memory, place), align=DOUBLE_SIZE)

    def store_vector(self, value: ir.Value, memory: ir.Value, place: ir.Value) -> None:
        """Write neighbouring elements."""
        self.builder.store(value, self._vector_at(memory, place), align=DOUBLE_SIZE)

    def _vector_at(self, memory: ir.Value, place: ir.Value) -> ir.Value:
        address = self.builder.gep(memory, [place], inbounds=True)
        return self.builder.bitcast(address, _VECTOR.as_pointer())

    # --- decisions ---------------------------------------------------------------------------------

    def compared(self, sign: str, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return a bit; comparisons with not-a-number are false, but != is true."""
        if sign == "!=":
            return self.builder.fcmp_unordered(sign, first, second)
        return self.builder.fcmp_ordered(sign, first, second)

    def chosen(self, bit: ir.Value, yes: ir.Value, no: ir.Value) -> ir.Value:
        """Return one of two values."""
        return self.builder.select(bit, yes, no)

    def truth(self, bit: ir.Value) -> ir.Value:
        """Return a bit as 1 or 0."""
        return self.builder.uitofp(bit, DOUBLE)

    def true(self, value: ir.Value) -> ir.Value:
        """Return a number as a bit: whether it is not 0."""
        return self.compared("!=", value, self.number(0.0))

    def extreme(self, sign: str, first: ir.Value, second: ir.Value) -> ir.Value:
        """Return the larger (``">"``) or smaller one, or not-a-number."""
        better = self.builder.or_(self.compared(sign, first, second), self.compared("!=", first, first))
        return self.chosen(better, first, second)

    def sign(self, value: ir.Value) -> ir.Value:
        """Return 1, -1, 0 or not-a-number."""
        zero = self.number(0.0)
        negative = self.chosen(self.compared("<", value, zero), self.number(-1.0), self.mul(value, zero))
        return self.chosen(self.compared(">", value, zero), self.number(1.0), negative)

    def softshrink(self, value: ir.Value, limit: ir.Value) -> ir.Value:
        """Return the value moved towards 0 by a limit, as far as 0."""
        nothing = self.mul(value, self.number(0.0))
        below = self.compared("<", value, self.builder.fneg(limit))
        inside = self.chosen(below, self.add(value, limit), nothing)
        return self.chosen(self.compared(">", value, limit), self.sub(value, limit), inside)

    def hardshrink(self, value: ir.Value, limit: ir.Value) -> ir.Value:
        """Return the value, or 0 where it is within a limit of 0."""
        inside = self.compared("<=", self.call("fabs", value), limit)
        return self.chosen(inside, self.number(0.0), value)

    def sigmoid(self, value: ir.Value) -> ir.Value:
        """Return 1 / (1 + exp(-value))."""
        unity = self.number(1.0)
        return self.div(unity, self.add(unity, self.exp(self.builder.fneg(value))))

    def remainder(self, value: ir.Value, divisor: ir.Value) -> ir.Value:
        """Return value - floor(value / divisor) * divisor."""
        return self.sub(value, self.mul(self.call("floor", self.div(value, divisor)), divisor))

    def power(self, value: ir.Value, exponent: int) -> ir.Value:
        """Return a whole power of 1 or more."""
        result = value
        for _ in range(exponent - 1):
            result = self.mul(result, value)
        return result


def _compared(sign: str) -> Callable[..., ir.Value]:
    return lambda write, a, b: write.truth(write.compared(sign, a, b))


def _called(name: str) -> Callable[..., ir.Value]:
    return lambda write, *values: write.call(name, *values)


_LIBRARY = {
    "abs": "fabs",
    "round": "rint",
    **{
        name: name
        for name in (
            *(
                "acos",
                "asin",
                "atan",
                "atan2",
                "ceil",
                "cos",
                "cosh",
                "erf",
                "expm1",
                "floor",
                "log",
                "log1p",
            ),
            *("pow", "sin", "sinh", "sqrt", "tan", "trunc"),
        )
    },
}
"""Functions of a map that are functions of C's mathematical library."""
LIBRARY_FUNCTIONS = tuple({"abs": "fabs", "round": "rint"}.get(name, name) for name in _LIBRARY)
"""Names in that library."""
_SIGNS = {"eq": "==", "ge": ">=", "gt": ">", "le": "<=", "lt": "<", "ne": "!="}
"""Functions of a map that compare."""
FUNCTIONS: dict[str, Callable[..., ir.Value]] = {
    **{name: _called(called) for name, called in _LIBRARY.items()},
    **{name: _compared(sign) for name, sign in _SIGNS.items()},
    "add": Instructions.add,
    "and": lambda write, a, b: write.truth(write.builder.and_(write.true(a), write.true(b))),
    "copy": lambda write, a: a,
    "div": Instructions.div,
    "exp": Instructions.exp,
    "hardshrink": Instructions.hardshrink,
    "maximum": lambda write, a, b: write.extreme(">", a, b),
    "minimum": lambda write, a, b: write.extreme("<", a, b),
    "mul": Instructions.mul,
    "neg": lambda write, a: write.builder.fneg(a),
    "not": lambda write, a: write.truth(write.compared("==", a, write.number(0.0))),
    "or": lambda write, a, b: write.truth(write.builder.or_(write.true(a), write.true(b))),
    "power": Instructions.power,
    "reciprocal": lambda write, a: write.div(write.number(1.0), a),
    "relu": lambda write, a: write.chosen(write.compared("<", a, write.number(0.0)), write.number(0.0), a),
    "remainder": Instructions.remainder,
    "rsqrt": lambda write, a: write.div(write.number(1.0), write.call("sqrt", a)),
    "sigmoid": Instructions.sigmoid,
    "sign": Instructions.sign,
    "softshrink": Instructions.softshrink,
    "sub": Instructions.sub,
    "tanh": Instructions.tanh,
    "where": lambda write, condition, yes, no: write.chosen(write.true(condition), yes, no),
}
"""Functions of a map."""
