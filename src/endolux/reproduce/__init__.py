"""Published experiments, rerun: grids of runs, their tables beside the published ones, and which claims hold.

* ``grid`` what a system's experiments are (data in ``grids/``), ``plan`` the runs that follow from it,
* ``data`` what is trained and tested on, ``worker`` one run in a process of its own, ``schedule`` all of them,
* ``timing`` parameters, multiplications and seconds, ``results`` what runs leave behind,
* ``figures`` means, paired differences and verdicts, ``report`` tables for people, ``command`` the whole.
"""
