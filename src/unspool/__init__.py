"""unspool: long text, unabridged."""
