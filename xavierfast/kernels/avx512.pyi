from .portable import address as address
from .portable import equals as equals
from .portable import fill as fill
from .portable import fused_all as fused_all
from .portable import gather as gather
from .portable import values as values
