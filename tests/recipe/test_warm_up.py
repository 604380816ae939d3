from __future__ import annotations

import subprocess
import sys

import pytest


def test_all_kernels_of_a_training_in_the_precision_of_this_machine_are_compiled():
    pytest.importorskip("numba")
    lines = """if True:
        import sys
        from folio.recipe.warm_up import compile_kernels
        compile_kernels()
        from folio.fast.kernels import layers as of_model
        from folio.fast.kernels import training as of_training
        for module in (of_model, of_training):
            for name, kernel in vars(module).items():
                own = getattr(kernel, "__module__", "").startswith("folio.fast.kernels")
                called = own and getattr(kernel, "targetoptions", {}).get("nogil")
                if called and not kernel.signatures:
                    print(name)
        print("sympy" in sys.modules, "torch._dynamo" in sys.modules)
    """
    done = subprocess.run([sys.executable, "-c", lines], check=True, capture_output=True, text=True)
    *rest, sympy, compiler = done.stdout.split()
    of_bytes = ["measure_both_ways", "to_int8_both_ways", "from_int32"]
    assert sorted(rest) == sorted(["to_int8", "columns_to_int8", *of_bytes])
    # What torch loads for a second and 100 MB, in each process, if it is asked the wrong way.
    assert (sympy, compiler) == ("False", "False")
