"""The core: from a seed and a name to numbers in memory, without any knowledge of files or frameworks.

Read in this order: ``stream`` (seed and name give a key), the includes of ``kernels`` (a key gives words, words give
values), ``dtypes``, ``distributions``, ``sampler`` (a key, a kernel, its constants), ``fill`` (a sampler and memory).
"""
