"""What the figures share. Controls are blue and patients orange throughout.

Each function of this wing takes finished data and axes, draws, and returns the axes: it computes, saves, shows nothing.
"""

LABEL_COLOURS = {"control": "#0072B2", "patient": "#D55E00"}  # Okabe and Ito: told apart by the colour-blind
DEFICIENCY_COLOURS = {"none": "#d9d9d9", "CI": "#56B4E9", "CIV": "#E69F00", "CI+CIV": "#CC3311"}
COVERED = {"training patches": "#56B4E9", "test patches": "#F0E442", "both": "#CC3311"}
FROZEN, TRAINED = "#9aa5b1", "#009E73"
SMALL, NORMAL, LARGE = 8, 9, 10  # points
