from .portable import address as address
from .portable import fill as fill
from .portable import scatter as scatter
from .portable import values as values
