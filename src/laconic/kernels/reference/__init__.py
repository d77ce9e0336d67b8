"""The definition of every kernel in plain PyTorch or NumPy: what runs where nothing faster can.

The compiled forms for CPUs and GPUs must equal them bit for bit. Nothing here dispatches; imports are of this
package, and of tables and constants that all forms share.
"""
