"""The same steps by JAX and kfac-jax, in a process of their own, and side by side with this project's.

JAX and PyTorch live in environments of their own: ``make benchmark-peers`` makes JAX's. What runs there (``worker.py``,
and below it ``problem.py``, ``steps.py``, ``kfac.py``) imports no PyTorch, what runs here (``process.py``,
``compare.py``) no JAX.
"""
