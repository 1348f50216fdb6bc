"""MLflow's REST API, as its stock clients speak it.

=====================  =========================================================
:mod:`.wire`           prefixes, parameters, errors, the header of the workspace
:mod:`.workspaces`     workspaces
:mod:`.users`          who asks, and other users
:mod:`.routes`         every route, in one list
=====================  =========================================================
"""
