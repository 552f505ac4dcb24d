"""Jobs on a cluster, submitted by submitit (https://github.com/facebookincubator/submitit) and looked after by the one
runner of :mod:`..jobs`.
"""
