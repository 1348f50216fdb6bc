"""MLflow's REST API, as its stock clients speak it.

=====================  =========================================================
:mod:`.wire`           prefixes, parameters, errors, the header of the workspace
:mod:`.routes`         every route, in one list
=====================  =========================================================
"""
