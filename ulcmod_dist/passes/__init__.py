"""The few products that touch the big array, as block kernels and thin Dask wrappers."""
