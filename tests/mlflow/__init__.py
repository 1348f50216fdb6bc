"""The stock MLflow client and the stock ``mlflow server``, held against Bedplate."""
