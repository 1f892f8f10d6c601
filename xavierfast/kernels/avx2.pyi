from .portable import fill as fill, scatter as scatter, values as values
