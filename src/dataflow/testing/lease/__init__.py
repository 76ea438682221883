"""Which database a test that commits gets, and what becomes of it afterwards.

The `broker` keeps the databases of this process. It has them made from a template (`clones`), lends one to a test
(`lease`), ends whoever is still inside when it comes back (`backends`), and has it put back as it was (`inplace`)
or replaced, all from the session for `maintenance`. What it can do follows from what the server allows
(`strategy`).
"""
