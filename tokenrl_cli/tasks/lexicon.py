"""English and German words of the embedded translation task, as plain tables that `grammar` reads.

Where an English word has two German translations, "a / b", the house translator nearly always writes the first, and the
others write either. Classes of nouns: P persons, T things, M machines, X texts, H buildings, F food. Sentences use the
singular only.
"""

OPENINGS = """
I think that | Ich glaube | Ich denke
We assume that | Wir nehmen an | Wir vermuten
They say that | Man sagt | Es heißt
Everyone knows that | Jeder weiß | Alle wissen
Unfortunately, | Leider | Bedauerlicherweise
Of course, | Natürlich | Selbstverständlich
Perhaps | Vielleicht | Möglicherweise
Fortunately, | Zum Glück | Glücklicherweise
"""  # English | of the house translator | of the others; no other part of a sentence uses these German words

TIMES = """
yesterday | gestern | past
last week | letzte Woche | past
recently | neulich | past
today | heute | present
now | jetzt | present
this week | diese Woche | present
tomorrow | morgen | future
soon | bald | future
next week | nächste Woche | future
"""  # English | its one German translation | tense

# English | class | German word, gender (m, f, n), and the other cases of the singular where they differ
NOUNS = """
man | P | Mann m
woman | P | Frau f
child | P | Kind n
girl | P | Mädchen n
boy | P | Junge m Jungen
doctor | P | Arzt m / Doktor m
teacher | P | Lehrer m
neighbor | P | Nachbar m Nachbarn
guest | P | Gast m
aunt | P | Tante f
sister | P | Schwester f
grandmother | P | Großmutter f / Oma f
grandfather | P | Großvater m / Opa m
picture | T | Bild n / Gemälde n
present | T | Geschenk n / Präsent n
dress | T | Kleid n
key | T | Schlüssel m
table | T | Tisch m
car | M | Auto n / Wagen m
bicycle | M | Fahrrad n / Rad n
clock | M | Uhr f
lamp | M | Lampe f / Leuchte f
letter | X | Brief m / Schreiben n
book | X | Buch n
story | X | Geschichte f / Erzählung f
report | X | Bericht m
house | H | Haus n
shop | H | Laden m / Geschäft n
apartment | H | Wohnung f
bread | F | Brot n
soup | F | Suppe f
cake | F | Kuchen m
"""

# English | classes | German stems
ADJECTIVES = """
old | P T M H | alt
new | T M X H | neu
young | P | jung
small | P T M H F | klein
big | T M H F | groß
friendly | P | freundlich / nett
clever | P | klug / schlau
famous | P | berühmt / bekannt
tired | P | müd
beautiful | T H | schön / hübsch
expensive | T M H F | teur / kostspielig
red | T M | rot
fresh | F | frisch
long | X | lang
short | X | kurz
strange | P T X | seltsam / merkwürdig
exciting | X | spannend / aufregend
"""

# English base, past, progressive | objects | recipients | case of the object (a accusative, d dative)
# | German present, preterite, participle, infinitive, separable prefix
VERBS = """
buy bought buying | T M H F | | a | kauft kaufte gekauft kaufen / erwirbt erwarb erworben erwerben
sell sold selling | T M H | | a | verkauft verkaufte verkauft verkaufen
repair repaired repairing | M | | a | repariert reparierte repariert reparieren
clean cleaned cleaning | M H | | a | putzt putzte geputzt putzen / reinigt reinigte gereinigt reinigen
read read reading | X | | a | liest las gelesen lesen
write wrote writing | X | | a | schreibt schrieb geschrieben schreiben / verfasst verfasste verfasst verfassen
eat ate eating | F | | a | isst aß gegessen essen / verspeist verspeiste verspeist verspeisen
order ordered ordering | F M | | a | bestellt bestellte bestellt bestellen
visit visited visiting | P | | a | besucht besuchte besucht besuchen
call called calling | P | | a | ruft rief angerufen anrufen an
invite invited inviting | P | | a | lädt lud eingeladen einladen ein
help helped helping | P | | d | hilft half geholfen helfen
thank thanked thanking | P | | d | dankt dankte gedankt danken
show showed showing | T H X | P | a | zeigt zeigte gezeigt zeigen
send sent sending | T X | P | a | schickt schickte geschickt schicken / sendet sandte gesandt senden
bring brought bringing | T F | P | a | bringt brachte gebracht bringen
"""

DETERMINERS = "the a my this"

# German determiner, in this order: masculine nominative, accusative, dative; feminine; neuter
ARTICLES = """
the | der den dem | die die der | das das dem
a | ein einen einem | eine eine einer | ein ein einem
my | mein meinen meinem | meine meine meiner | mein mein meinem
this | dieser diesen diesem | diese diese dieser | dieses dieses diesem
"""

# Endings of an adjective, in the same order, after der and dieser, and after ein and mein
ENDINGS = """
the this | e en en | e e en | e e en
a my | er en en | e e en | es es en
"""
