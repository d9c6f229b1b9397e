"""Reusable functions: data preparation, analysis, training and deployment, one folder each.

Each will be a folder with `function.py` (one public function, which uses only rayml's public API)
and `hub.toml` (version, requirements, resources); its parameters and its documentation are its
signature and its docstring. A job names one as `hub://name`. Import the package as `rayml.hub`,
never as `hub`.
"""
