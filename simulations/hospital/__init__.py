"""The parts of the synthetic hospitals: who falls ill, what is measured and done, what is written down.

``simulations/synthetic.py`` describes the whole model and puts the parts together.
"""
