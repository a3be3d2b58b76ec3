"""Models of other libraries become ONNX, on the owner's machine, before they are sealed.

``recognise`` tells what a file is; ``conversion`` runs the library in a child process and takes what it leaves;
``agreement`` holds the two models against each other; ``from_*`` hold one library each and are imported in the child
alone. The libraries are optional extras. Nothing here is ever part of an enclave. Not done here: running the ONNX
model, which the caller does with the engine that will serve it.
"""
