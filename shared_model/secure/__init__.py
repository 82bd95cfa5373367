"""Secure aggregation: the server learns sums over sites, and never one site's part (docs/decisions/0016).

The protocol of Bonawitz et al. 2017 (CCS, doi 10.1145/3133956.3133982) for honest-but-curious servers, on one session a
sum, with fresh keys each:

1. keys     every site tells two public keys and a commitment to its self-mask's seed
2. shares   every site splits its masking key and its seed among all, sealed to each
3. answer   every site adds a mask to its answer: its own, and one a pair of sites, which cancel in the sum
4. unmask   the sites that are left tell, of each site, one share: of the seed if it answered, of the key if it did not

``ring`` adds without leaking size, ``shamir`` splits, ``keys`` agrees and seals, ``protocol`` is the four steps as
functions, ``encoding`` makes integers of what is to be added, ``messages`` carries all of it.
"""
