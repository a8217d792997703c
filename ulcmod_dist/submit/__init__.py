"""Jobs on clusters: what travels, what is rendered, and how Ray, Kubernetes and Slurm take it."""
