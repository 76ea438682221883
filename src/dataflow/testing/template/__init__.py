"""Template databases: a schema is built once per server, sealed, and from then on only copied.

- `source`: what a schema source is; `files`, `function`, `command`: its kinds; `steps`: several in a row;
- `store`: what everybody else uses: `TemplateStore.ensure` gives the template of a source;
- `building`, `pruning`: how a template comes and goes; `locks`: who may; `databases`, `naming`: SQL and names;
- `session`, `apart`: connections and threads, bounded in time; `inputs`, `importing`, `failure`: files, functions
  and words.

What does not live here: copies for tests, and which schema a run uses. Administration is synchronous, so that it
works with and without an event loop; psycopg is loaded with the first session.
"""
