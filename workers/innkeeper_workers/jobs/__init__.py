"""Jobs of rooms in rq: owners put them into its queue, ``innkeeper jobs`` runs them and pushes their results."""
