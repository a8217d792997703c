"""The search: objective, sweeps, initial modules, driver."""
