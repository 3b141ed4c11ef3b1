"""The resources of group ``distriqueue.io``: what people write, what the operator answers, and the limits of both.

Importing this package costs nothing. The modules are of two sorts:

* plain constants, for every hot path: `names`, `phases`, `limits`, `conditions`, `fences`, and `raw` (the shape of a
  resource as a plain dictionary, for the type checker);
* pydantic models and what is generated from them: `jobs`, `workers`, `crds`, `admission`. They are the only source of
  ``crds/*.yaml``; the operator's loops never import them.
"""
