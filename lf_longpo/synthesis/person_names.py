"""Names for invented people."""

FIRST = """Ada Bruno Carla Dario Edda Falk Greta Hanno Ilse Jonas Katia Lorenz Mira Nils Olga Pavel Quirin Rosa Sven
Tilda Ugo Vera Wanda Xaver Yara Zeno Agnes Boris Celia Detlef""".split()
LAST = """Almbach Brandis Corvin Dornau Eschen Farlow Gessner Halvard Imhof Jessup Kestrel Lindqvist Morrow Nordahl
Ostrow Penrose Quist Rademaker Selwyn Thorne Ulbrich Vossler Wickham Yarrow Zeller Ashdown Bellamy Crane""".split()
