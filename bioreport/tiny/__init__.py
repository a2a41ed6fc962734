"""How the embedded model `bioreport-tiny` is made: ``python -m bioreport.tiny -o DIR``.

`corpus` simulates recordings and cuts them into labelled epochs, `encoder` trains the small CBraMod and its
findings head on them, `language` trains the small causal LM on simulated reports, and the projector is
trained with that LM frozen, by the same code as ``python -m bioreport train``.
"""
