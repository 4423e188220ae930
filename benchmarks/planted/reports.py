"""Made-up reports in four languages with identifiers planted in them; every name and number is invented.

A report is a run of innocent sentences with one to three that hold identifiers between them. What was planted is known
word by word, so that what a cleaner leaves, and what it changes wrongly, can be counted.
"""

import random
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass

FIRST = {
    "en": ["Alice", "Graham", "Siobhan", "Derek", "Priya", "Wei", "Olu", "Fatima", "Nigel", "Beth"],
    "de": ["Annegret", "Björn", "Dörte", "Hans-Peter", "Ayşe", "Łukasz", "Käthe", "Uwe", "Ilse", "Jürgen"],
    "fr": ["Aurélie", "Benoît", "Cécile", "Jean-Luc", "Maëlle", "Amadou", "Hélène", "Thierry", "Zoé", "Yves"],
    "es": ["Begoña", "Íñigo", "Concepción", "Jesús", "Nuria", "Álvaro", "Xiomara", "Joaquín", "Inés", "Pilar"],
}
LAST = {
    "en": [
        "Whitaker",
        "O'Brien",
        "Young",
        "Patel",
        "Nguyen",
        "Abernathy",
        "Brown",
        "McAllister",
        "Okonkwo",
        "Fleming",
        "Li",
        "Donnelly",
        "Hall",
        "Kaur",
    ],
    "de": [
        "Müller-Lüdenscheidt",
        "Kowalski",
        "Klein",
        "Grünwald",
        "von der Heide",
        "Öztürk",
        "Hartung",
        "Zimmermann",
        "Weiß",
        "Stein",
        "Schäfer",
    ],
    "fr": [
        "Lefèvre",
        "D'Aubigny",
        "Petit",
        "Benali",
        "de La Fontaine",
        "Gauthier",
        "N'Diaye",
        "Rousseau",
        "Chevalier",
        "Besançon",
        "Le Goff",
    ],
    "es": [
        "Muñoz",
        "García Lorca",
        "de la Cruz",
        "Ibáñez",
        "Etxeberria",
        "Quispe",
        "Peña",
        "Núñez",
        "Domínguez",
        "Caballero",
        "Rey",
    ],
}
"""Surnames; some are ordinary words as well, some have two parts, particles, hyphens, apostrophes and accents."""

INNOCENT = {
    "en": (
        "The heart is normal in size.",
        "There is a 12 x 14 mm nodule in the right upper lobe.",
        "No pleural effusion or pneumothorax is seen.",
        "Degenerative changes from T12-L1 to L5-S1, most marked at C5/6.",
        "The lesion shows uptake with an SUV of 4.2.",
        "MRI at 1.5 T with T1 and T2 weighted FLAIR sequences.",
        "Findings are in keeping with Crohn disease of the terminal ileum.",
        "Schmorl nodes are noted; attenuation measures 35 HU.",
        "Mild bibasilar atelectasis is unchanged.",
        "The liver, spleen and both kidneys are unremarkable.",
        "BI-RADS 2, follow-up in 6 months is advised.",
        "Volume of the collection is 12500 mm3.",
    ),
    "de": (
        "Kein Nachweis eines Pleuraergusses oder Pneumothorax.",
        "Die Leber ist normal groß mit homogenem Parenchym.",
        "In Höhe von L4/5 zeigt sich ein breitbasiger Bandscheibenvorfall.",
        "Regelrechte Darstellung der Nieren und der Nebennieren beidseits.",
        "Rundherd im rechten Oberlappen mit einem Durchmesser von 12 x 14 mm.",
        "Die Nasennebenhöhlen sind frei belüftet.",
        "Fraktur des distalen Radius mit dorsaler Abkippung.",
        "Vereinbar mit einem Morbus Crohn.",
        "Der Herzschatten ist nicht verbreitert.",
        "Untersuchung bei 1,5 T mit T2-gewichteten Sequenzen und Kontrastmittel.",
        "Die Kniescheibe steht zentral, der Innenmeniskus zeigt eine Signalanhebung im Hinterhorn.",
    ),
    "fr": (
        "Absence d'épanchement pleural ou de pneumothorax.",
        "Le foie est de taille normale, de contours réguliers.",
        "Nodule de 12 x 14 mm du lobe supérieur droit.",
        "Discopathie dégénérative en L5-S1 sans conflit radiculaire.",
        "Aspect compatible avec une maladie de Crohn.",
        "Les reins sont de morphologie normale.",
        "Pas de dilatation des voies biliaires.",
        "Examen réalisé à 1,5 T avec injection de gadolinium.",
        "Silhouette cardiaque dans les limites de la normale.",
    ),
    "es": (
        "No se observa derrame pleural ni neumotórax.",
        "El hígado es de tamaño normal y contorno liso.",
        "Nódulo de 12 x 14 mm en el lóbulo superior derecho.",
        "Cambios degenerativos en L5-S1 sin compromiso radicular.",
        "Hallazgos compatibles con enfermedad de Crohn.",
        "Los riñones presentan morfología conservada.",
        "Vía biliar no dilatada.",
        "Estudio realizado a 1,5 T con contraste intravenoso.",
        "Silueta cardíaca dentro de límites normales.",
    ),
}
SENTENCES = {
    "en": {
        "header name": ("{} was examined supine.", "Images of {} were reviewed.", "Compared with {}'s earlier study."),
        "listed name": ("Discussed on the ward with {}.", "Seen together with {} today."),
        "titled name": ("Dr. {} was informed.", "Referred by Prof. {}.", "Mrs {} tolerated the examination well."),
        "signed name": ("Electronically signed by: {}", "Dictated by {}.", "cc: {}"),
        "unknown name": ("The findings were shown to {} in the evening.", "According to {} the pain began suddenly."),
        "header number": ("MRN {}.", "Accession number: {}.", "See {} for details."),
        "other number": ("Order number {}.", "Patient ID: {}.", "The case is stored as {}."),
        "date": ("Comparison: {}.", "Compared with the study of {}.", "Surgery on {}."),
        "time": ("Reported at {}.", "Called at {} and informed."),
        "phone": ("Phone {}.", "Please call {} with questions.", "Fax: {}."),
        "email or link": ("Write to {}.", "Available at {}."),
        "address": ("Lives at {}.", "Address: {}."),
        "hospital": ("Transferred from {}.", "Prior imaging at {} is not available."),
        "age": ("The patient is {}.", "History: {} with a fall."),
    },
    "de": {
        "header name": ("{} wurde in Rückenlage untersucht.", "Aufnahmen von {} liegen vor."),
        "listed name": ("Besprochen auf Station mit {}.", "Gemeinsam gesehen mit {}."),
        "titled name": ("Herr {} wurde informiert.", "Zuweisung durch Dr. med. {}.", "Frau {} klagt über Schmerzen."),
        "signed name": ("Befundet von {}.", "gez. {}", "Unterzeichnet: {}"),
        "unknown name": ("Die Bilder wurden abends an {} gezeigt.", "Laut {} begann der Schmerz plötzlich."),
        "header number": ("Fallnummer {}.", "Auftragsnummer: {}.", "Siehe {}."),
        "other number": ("Patienten-ID: {}.", "Der Fall ist als {} gespeichert."),
        "date": ("Voraufnahme vom {}.", "Operation am {}.", "Verglichen mit {}."),
        "time": ("Mitgeteilt um {}.", "Aufnahme {}."),
        "phone": ("Telefon {}.", "Rückfragen unter {}."),
        "email or link": ("Bilder unter {}.", "Antwort an {}."),
        "address": ("Wohnhaft {}.", "Anschrift: {}."),
        "hospital": ("Verlegung aus dem {}.", "Voruntersuchung im {}."),
        "age": ("Die Patientin ist {}.", "Sturz, {}."),
    },
    "fr": {
        "header name": ("{} a été examiné en décubitus.", "Images de {} relues ce jour."),
        "listed name": ("Discuté dans le service avec {}.", "Vu avec {} ce jour."),
        "titled name": ("Le Dr {} a été informé.", "Mme {} se plaint de douleurs.", "M. {} a bien toléré l'examen."),
        "signed name": ("Signé par {}.", "Dicté par {}.", "Validé par {}"),
        "unknown name": ("Les images ont été montrées à {} le soir.", "Selon {} la douleur est ancienne."),
        "header number": ("Dossier n° {}.", "IPP {}.", "Voir {}."),
        "other number": ("Numéro {}.", "Le cas est conservé sous {}."),
        "date": ("Comparaison avec l'examen du {}.", "Opéré le {}."),
        "time": ("Transmis à {}.", "Examen de {}."),
        "phone": ("Tél. {}.", "Joindre le {}."),
        "email or link": ("Écrire à {}.", "Images sur {}."),
        "address": ("Habite {}.", "Adresse : {}."),
        "hospital": ("Transféré du {}.", "Examen antérieur fait au {}."),
        "age": ("Patiente âgée de {}.", "Chute, {}."),
    },
    "es": {
        "header name": ("{} fue explorado en decúbito.", "Imágenes de {} revisadas hoy."),
        "listed name": ("Comentado en planta con {}.", "Visto con {} hoy."),
        "titled name": ("Se informa al Dr. {}.", "La Sra. {} refiere dolor.", "Avisada la Dra. {}."),
        "signed name": ("Firmado por {}.", "Dictado por {}.", "Informado por: {}"),
        "unknown name": ("Las imágenes fueron mostradas a {} por la noche.", "Según {} el dolor es antiguo."),
        "header number": ("NHC {}.", "Expediente: {}.", "Ver {}."),
        "other number": ("Número {}.", "El caso se guarda como {}."),
        "date": ("Comparación con estudio del {}.", "Intervenido el {}."),
        "time": ("Comunicado a las {}.", "Estudio de las {}."),
        "phone": ("Teléfono {}.", "Llamar al {}."),
        "email or link": ("Escribir a {}.", "Imágenes en {}."),
        "address": ("Vive en {}.", "Domicilio: {}."),
        "hospital": ("Trasladado del {}.", "Estudio previo en el {}."),
        "age": ("Paciente de {}.", "Caída, {}."),
    },
}
DATES = {
    "en": (
        "March 14, 2019",
        "3/14/2019",
        "14 Mar 2019",
        "2019-03-14",
        "the 3rd of May 2020",
        "Sept 2018",
        "03/14/19",
        "20190314",
    ),
    "de": ("14.03.2019", "14. März 2019", "1.2.20", "im Dezember 2018", "14.03.", "03/2019", "2019-03-14"),
    "fr": ("14/03/2019", "14 mars 2019", "1er août 2018", "14.03.19", "décembre 2018", "2019-03-14"),
    "es": ("14/03/2019", "14 de marzo de 2019", "3-5-2020", "diciembre de 2018", "1 de enero del 2019", "14/3/19"),
}
TIMES = {
    "en": ("14:35", "2:30 pm", "09:05:11", "4 p.m.", "1435 hours"),
    "de": ("14:35 Uhr", "8 Uhr", "14.35 Uhr", "9:05"),
    "fr": ("14h30", "8 h 05", "14:35"),
    "es": ("14:35 h", "8:05", "14:35 horas"),
}
PHONES = {
    "en": ("(617) 555-0123", "617-555-0123", "+1 617 555 0123", "020 7946 0958", "x4711 or pager 5523", "555-0134"),
    "de": ("06221 / 56-4711", "+49 6221 564711", "(06221) 564711", "0171 5550123", "030/450-12"),
    "fr": ("01 23 45 67 89", "+33 1 23 45 67 89", "01.23.45.67.89"),
    "es": ("912 345 678", "+34 912 345 678", "91 234 56 78", "600-123-456"),
}
ADDRESSES = {
    "en": (
        "12 Long Acre Road, Oxford OX3 9DU",
        "1600 Maple Street, Springfield, IL 62704",
        "Flat 3, 9 Queens Terrace",
        "PO Box 4711",
    ),
    "de": (
        "Hauptstraße 12a, 69120 Heidelberg",
        "Am Markt 3, 01067 Dresden",
        "Bad Nauheimer Str. 7",
        "Postfach 4711",
        "Lindenweg 4",
    ),
    "fr": ("12 rue de la Paix, 75002 Paris", "3 bis avenue Victor Hugo, 31000 Toulouse", "45, chemin des Lilas"),
    "es": (
        "Calle de Alcalá 23, 28014 Madrid",
        "Avda. de la Constitución, 4",
        "C/ Mayor 7, 08002 Barcelona",
        "Plaza España, n.º 3",
    ),
}
HOSPITALS = {
    "en": (
        "St. Mary's Hospital",
        "Royal Infirmary of Edinburgh",
        "Springfield General Hospital",
        "Mount Elm Medical Center",
    ),
    "de": (
        "Universitätsklinikum Heidelberg",
        "St.-Josef-Krankenhaus",
        "Klinikum Großhadern",
        "Krankenhaus der Barmherzigen Brüder",
    ),
    "fr": ("CHU de Toulouse", "Hôpital Saint-Louis", "Centre hospitalier de Lens"),
    "es": ("Hospital Universitario La Paz", "Hospital de la Santa Cruz", "Clínica Quirón"),
}
AGES = {
    "en": ("92 years old", "94-year-old", "101 y/o", "aged 95"),
    "de": ("92 Jahre alt", "94-jährig", "91 Jahre"),
    "fr": ("92 ans", "101 ans"),
    "es": ("92 años", "97 años de edad"),
}
LINKS = (
    "a.b.muster@klinik-nord.de",
    "https://pacs.example.org/s?id=77",
    "www.example.com/pat",
    "j_doe1@mail.example.co.uk",
)
_GENERIC = (
    "the of im or pager road street flat po box am bad str postfach rue de la bis avenue chemin des calle avda c "
    "plaza n hospital royal infirmary general medical center mount der krankenhaus klinikum chu centre "
    "hospitalier hôpital lens universitario clínica el del las los h uhr horas hours pm p m years year old y o "
    "aged jahre alt jährig ans años edad x com org www https s id mail example pat von le goff paz santa "
)
GENERIC = frozenset(_GENERIC.split())
"""Words of planted texts that tell of nobody by themselves."""


@dataclass(frozen=True)
class Planted:
    """One identifier, with the words of it that must not be left."""

    kind: str
    text: str
    secrets: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """A report with what was planted in it, and its innocent words."""

    language: str
    text: str
    planted: tuple[Planted, ...]
    innocent: tuple[str, ...]
    header: frozenset[str]
    listed: frozenset[str]


def make(rng: random.Random, words_of: Callable[[str], list[str]], kinds: tuple[str, ...] = ()) -> Report:
    """A report with identifiers of these kinds; of one to three kinds by chance where none are named."""
    language = rng.choice(tuple(INNOCENT))
    known = [kind for kind in SENTENCES[language] if kind != "unknown name"]
    # Doubtful names come alone: otherwise every report with one of them would wait, whatever else became of it.
    chosen = kinds or ((*rng.sample(known, rng.randint(1, 3)),) if rng.random() < 0.85 else ("unknown name",))
    sentences = rng.sample(INNOCENT[language], min(5, len(INNOCENT[language])))
    innocent = [word for sentence in sentences for word in words_of(sentence)]
    planted, header, listed = [], set[str](), set[str]()
    for kind in chosen:
        plain, written = _identifier(kind, language, rng)
        frame = rng.choice(SENTENCES[language][kind])
        sentences.insert(rng.randint(0, len(sentences)), frame.format(written))
        secrets = tuple(word for word in words_of(plain) if len(word) > 1 and word not in GENERIC)
        planted.append(Planted(kind, written, secrets))
        header |= set(secrets) if kind.startswith("header") else set()
        listed |= set(secrets) if kind.startswith("listed") else set()
    separator = rng.choice((" ", "\n"))
    return Report(
        language, separator.join(sentences), tuple(planted), tuple(innocent), frozenset(header), frozenset(listed)
    )


def _identifier(kind: str, language: str, rng: random.Random) -> tuple[str, str]:
    """The identifier as a header has it, and as the report writes it."""
    if "name" in kind:
        name = f"{rng.choice(FIRST[language])} {rng.choice(LAST[language])}"
        return name, _written(name, kind, rng)
    if "number" in kind:
        number = rng.choice(
            (
                f"{rng.randrange(10**4, 10**9)}",
                f"AB{rng.randrange(10**4, 10**7)}",
                f"{rng.randrange(10, 99)}-{rng.randrange(10**4, 10**6)}",
                f"2019RX{rng.randrange(100, 999)}",
            )
        )
        return number, number
    tables = {"date": DATES, "time": TIMES, "phone": PHONES, "address": ADDRESSES, "hospital": HOSPITALS, "age": AGES}
    text = rng.choice(LINKS if kind == "email or link" else tables[kind][language])
    return text, text


def _written(name: str, kind: str, rng: random.Random) -> str:
    """A name as people write it: its surname alone, with an initial, in capitals, with accents apart or spelt out."""
    first, last = name.split(" ", 1)
    if kind == "unknown name":
        return rng.choice((name, last, f"{last}, {first}"))
    forms = [name, last, f"{first[0]}. {last}", f"{last}, {first}"]
    if kind.startswith(("header", "listed")):
        forms += [
            name.upper(),
            unicodedata.normalize("NFD", name),
            _spelt_out(name),
            last.replace("-", "-\n", 1),
            name.lower(),
        ]
    return rng.choice(forms)


def _spelt_out(name: str) -> str:
    for letter, written in {"ä": "ae", "ö": "oe", "ü": "ue", "ß": "ss"}.items():
        name = name.replace(letter, written)
    return name
