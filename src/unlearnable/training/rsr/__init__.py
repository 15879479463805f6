"""Robust sparse regularization: noise on the weights, a lasso on them, and most of them cut off after training.

Rakin, He, Yang, Wang, Wang, Fan, "Robust Sparse Regularization", GLSVLSI 2020 (arXiv 1905.13074). Neither its code nor
its constants are public: what is not in the paper's abstract is ours, and ``docs/rsr.md`` tells which.
"""
