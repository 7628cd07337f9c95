"""The fault suite: kills, full disks, damaged files, jumping clocks, two servers, locks that refuse."""
