"""Sizes and SHA-256 of files of mirrors, as public code has recorded them; for `sources`.

CelebA's are the Hub's own list of its files at the pinned revision; PACS', DomainNet's and Waterbirds' were measured on
downloads. Other files are checked against what the server says.
"""

from __future__ import annotations

#: repository of the Hub -> (how its files' names begin, end), and a file per line: the rest of its name, bytes ("-":
#: not known), SHA-256
_PINNED = {
    "grodino/waterbirds": (
        ("default/", "/0000.parquet"),
        """
        train - 575b462a17ae00e6a03b4f1833e3a5952e28492e278d3246186586c27a46367a
        validation - 9ab73e8625fb5856e132ecbbe509f20829e5d59a9bd087b6cda86f5c478350fb
        test - fdb8696ce4db78c0ad48dd0120aaae40ce4330416d37fc41c9ea57faadc007f7
        """,
    ),
    "flwrlabs/pacs": (
        ("data/", ".parquet"),
        """
        train-00000-of-00001 191395900 4fc041ee92eec6043fe6e2859e8bdd138e5f958bc621afd153879812cbe65ff5
        """,
    ),
    "wltjr1007/DomainNet": (
        ("data/", ".parquet"),
        """
        train-00000-of-00003 758577202 37dfda4256254a53d58352ba6f3ea8a1ae24d13f3d39eb27a143b859f73b3e5a
        train-00001-of-00003 7205696451 c5d86606a2fa7b1418895717803cfa7c3e7adad37454ee7b1ad44f1ec0eb3e15
        train-00002-of-00003 4959599036 bb3dd680e02ac1cf539fb6d32959b096a06535892aa8c494e31378762f02613c
        test-00000-of-00001 5597563518 7eb34c7c9c020f265db6c4b2405c873f4bda0259cd06b43aa31df45a17a55409
        """,
    ),
    "flwrlabs/celeba": (
        ("img_align+identity+attr/", ".parquet"),
        """
        train-00000-of-00019 500402070 9f349da30bb755c3af41929270d6c5560121dd09121616980f05cb4e7b00b988
        train-00001-of-00019 498251284 5e6f2800d1ba6653072340daea433a9eb09b1c25d6a60d16158396e45f9f67ee
        train-00002-of-00019 494123817 57728860cfa53a153f90d5ef9e0af96d946209c3add1e484ace6560922d92551
        train-00003-of-00019 490434458 c676ff8b9290037f8228a58e69276bd5886cf5d5ca22926cdc7d39fdbbc3fac4
        train-00004-of-00019 494342449 94fdfb5f8f95011680eac2c454a18035411678a9e143ef476160e68771cf32bb
        train-00005-of-00019 503422722 0d83c60365c00cf466f2f55a8d36092c7982526218bf6884dd9334f41f96100c
        train-00006-of-00019 494063518 0c80fe536cb1d4239c2f7ada134da9858968c66023bc6a2976a8bc05b04fcf36
        train-00007-of-00019 492511619 8d0761963dfa3040d79daa2f7f30268da922e0d6fb5c1aed82d796ed0f718f2e
        train-00008-of-00019 497445734 265747c6c3cf8a87f18fba27c00dd7ae7e6c39287e7fffc885918d1a714ab592
        train-00009-of-00019 503059054 9f675cc97f7227e5ecba5b999b4599a46460d77cf0a9c3f9f3949213093ef3e5
        train-00010-of-00019 498101294 64974dcedcba2b76b521af639d9b6d5dba4df8e36ff9aa7a11853f82ecc6be8f
        train-00011-of-00019 501186917 011dca62f5569645a12d80d4ea49f01660de32a0d650bafe3fb3e4f9db272bbf
        train-00012-of-00019 493796347 20ede3eda874dfe3ef42d553bd4b395d3197a07c7651f2ed9f741084e7498985
        train-00013-of-00019 503616679 d73541045d8db00ff48593c81c76e915d3adf7e9ae3048b66d4c02ca01a6488e
        train-00014-of-00019 490108044 01dc8362d841d325ae9543c83eea4eb508c2a3f17122167baf0c04d242fd68af
        train-00015-of-00019 489097029 0611aba2a5381a728407fbc5368aab63b53d319155d9c867fe99b234219b9efc
        train-00016-of-00019 497714156 b0fb099f260d4b6cb582880cddbc92ff11dc68cb4ca72870e24542810961b157
        train-00017-of-00019 489160281 cb4fd9c4121c3b5e807562005786ae486ddc7e1cc9a91619736e4359533cb811
        train-00018-of-00019 489124107 feb6cf9d6a28e836f113098670a8b26d4c31d4f683a3e1a21a58371f68cfb6bb
        valid-00000-of-00003 387827665 d4bbce4bdd8c2bff49a3546cbe2e18bd2bd7312d2ebd95efd29aed6ba5df05db
        valid-00001-of-00003 385032335 76ddf9a3d15728dd00172f365eb76d0f852038fa08bfdc6b72e732e671c2daca
        valid-00002-of-00003 383642321 94da82da5405e159594a61b6fa6477aa7b5103d442d89dd9428841192c187b05
        test-00000-of-00003 391177633 c22a47cdec9e5b36b004c6af906ab6d49066e52a27e74440b55eae3dd9c8d44a
        test-00001-of-00003 383959773 205df6b286ccbdf9b2e67205cc86380fcdbe7673bf87c796a629bd7fafeda1b3
        test-00002-of-00003 383093383 db9c0833ab64e6a156530f87b54b1da931ce5d10731ecb9789238503b009ef97
        """,
    ),
}


def pinned(repository: str) -> dict[str, tuple[int | None, str]]:
    """File of a repository, in its order -> bytes (None: not known) and SHA-256; empty where nothing is pinned."""
    (begin, end), text = _PINNED.get(repository, (("", ""), ""))
    rows = (line.split() for line in text.split("\n") if line.strip())
    return {f"{begin}{name}{end}": (None if size == "-" else int(size), sha256) for name, size, sha256 in rows}
