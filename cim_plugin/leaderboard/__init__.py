"""``cim-plugin leaderboard``: run, pack and check a submission to the WILDS leaderboard."""
