"""One route table for every server: action, resource, audit class and limits of each route."""
