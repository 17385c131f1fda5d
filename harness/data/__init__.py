"""Where rows and models come from: sources, the mirror, procedural sets, chat formats, model folders."""
