from .portable import fill as fill, scatter as scatter
