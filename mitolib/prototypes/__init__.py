"""Prototype networks: ProtoPNet, IAIA-BL and HPnet, which explain an answer by examples."""
