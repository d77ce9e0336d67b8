"""Reference implementations of the kernels in plain PyTorch or NumPy, which define them.

The compiled forms for CPUs and GPUs must equal them bit for bit. Nothing here dispatches; imports are of this
package, and of tables and constants that all forms share.
"""
