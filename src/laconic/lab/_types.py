"""Types of arrays and sparse matrices of the lab."""

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import scipy.sparse

Array = npt.NDArray[np.float64]

if TYPE_CHECKING:
    CSR = scipy.sparse.csr_array[np.float64, tuple[int, int]]
else:
    CSR = scipy.sparse.csr_array  # which takes no parameters when the code runs
