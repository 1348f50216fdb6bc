"""The request path: replica, protocols, predictors, supervisor. Never loads the control plane."""
