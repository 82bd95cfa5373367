"""The fragments of radiology reports: per grade of lung burden (0 clear, 5 worst) several ways to say it.

All were written for this project; none is taken from a report. ``{side}`` and ``{zone}`` are filled in by
``radiology``.
"""

SIDES = ("right", "left")
ZONES = ("lower", "mid", "upper")

CHEST_EXAMS = ("CHEST (PORTABLE AP)", "CHEST (AP VIEW)", "PORTABLE CHEST RADIOGRAPH", "CHEST (PA AND LAT)")
REASONS: tuple[tuple[str, ...], ...] = (  # per two grades
    ("a new central line", "recent surgery", "a routine check", "tachycardia", "fever of unclear origin"),
    ("cough and fever", "shortness of breath", "some oxygen requirement", "suspected pneumonia"),
    ("severe hypoxemia", "worsening respiratory failure", "rapidly rising oxygen requirement"),
)
ABDOMEN_REASONS = ("abdominal pain", "fever of unclear origin", "rising lactate")
QUESTIONS = ("eval for acute process", "any infiltrate?", "interval change", "edema or pneumonia?")
TUBES = (
    "The endotracheal tube ends about ___ cm above the carina.",
    "Tip of the breathing tube lies in standard position.",
    "Endotracheal and orogastric tubes are in place.",
)
HEART = (
    "Heart size is at the upper limit of normal.",
    "The cardiac silhouette is normal in size.",
    "The cardiac silhouette is mildly enlarged.",
    "Mediastinal contours are stable.",
    "Heart and mediastinum are unremarkable for projection.",
)
BONES = (
    "No displaced rib fracture is seen.",
    "Degenerative changes of the spine are noted.",
    "Bony structures are intact.",
    "Median sternotomy wires are aligned.",
)

PARENCHYMA: tuple[tuple[str, ...], ...] = (
    (
        "The lungs are clear and well expanded.",
        "Both lungs are clear without focal consolidation.",
        "No opacity is seen; lung volumes are good.",
        "Clear lungs on both sides, no infiltrate.",
    ),
    (
        "The lungs are essentially clear with a thin band of {side} basilar atelectasis.",
        "Linear atelectasis at the {side} base, otherwise clear.",
        "Lung volumes are slightly low with trace plate-like atelectasis.",
        "No consolidation; minor streaky atelectasis in the {side} {zone} zone.",
    ),
    (
        "There is a mild patchy opacity in the {side} {zone} lung.",
        "Faint hazy opacity projects over the {side} {zone} zone.",
        "A small area of increased density is present at the {side} base.",
        "Mild interstitial prominence with a subtle {side} {zone} opacity.",
    ),
    (
        "Moderate airspace opacity occupies the {side} {zone} lobe.",
        "There are moderate bibasilar opacities, larger on the {side}.",
        "Moderate consolidation is present in the {side} {zone} zone.",
        "Moderately increased interstitial and alveolar markings, {side} more than the other side.",
    ),
    (
        "Multifocal consolidation involves both lungs, dense in the {side} {zone} zone.",
        "Marked bilateral airspace opacities are seen with air bronchograms.",
        "Severe perihilar and {zone} zone consolidation on both sides.",
        "Widespread bilateral opacities with dense {side} {zone} lobe consolidation.",
    ),
    (
        "Near complete opacification of the {side} lung and extensive opacity of the other.",
        "Diffuse dense opacification throughout both lungs, as in severe lung injury.",
        "Extensive confluent consolidation replaces most of both lungs.",
        "Diffuse bilateral white-out with little aerated lung left.",
    ),
)
PLEURA: tuple[tuple[str, ...], ...] = (
    ("No pleural effusion or pneumothorax.", "Costophrenic angles are sharp.", "The pleural spaces are free."),
    ("No sizable effusion.", "No edema and no effusion.", "Pleural surfaces are normal."),
    (
        "Trace {side} pleural effusion.",
        "Slight blunting of the {side} costophrenic angle.",
        "Mild vascular congestion without frank edema.",
    ),
    (
        "Small to moderate {side} pleural effusion.",
        "Moderate pulmonary edema.",
        "Moderate effusions layer at both bases.",
    ),
    (
        "Large {side} pleural effusion with adjacent collapse.",
        "Marked pulmonary edema and bilateral effusions.",
        "Large effusions on both sides, {side} greater.",
    ),
    (
        "Massive bilateral effusions.",
        "Severe diffuse alveolar edema.",
        "Very large {side} effusion with shift and severe edema.",
    ),
)
SUMMARY: tuple[tuple[str, ...], ...] = (
    ("No acute cardiopulmonary process.", "Normal chest radiograph.", "Clear lungs, nothing acute."),
    ("Minor atelectasis only.", "Bandlike atelectasis, no pneumonia.", "No pneumonia; minimal atelectasis."),
    (
        "Mild {side} {zone} opacity, possibly early pneumonia.",
        "Mild patchy opacity, atelectasis or aspiration.",
        "Mild congestion with a small opacity.",
    ),
    (
        "Moderate {side} pneumonia with effusion.",
        "Moderate opacities, pneumonia or moderate edema.",
        "Moderate consolidation of the {side} {zone} lobe.",
    ),
    (
        "Severe multifocal pneumonia with large effusion.",
        "Severe bilateral airspace disease.",
        "Multifocal pneumonia and marked edema, severe.",
    ),
    (
        "Diffuse lung injury, extensive; critical finding called to the team.",
        "Extensive confluent consolidation, critical.",
        "Near total opacification, consistent with acute respiratory distress syndrome.",
    ),
)
CHANGE: tuple[tuple[str, ...], ...] = (
    ("Unchanged from ___.", "No prior for comparison.", "Stable since ___."),
    ("Improved since ___.", "Unchanged.", "Stable compared with ___."),
    ("Slightly increased since ___.", "Little changed from ___.", "New compared with ___."),
    ("Increased since ___.", "Worsening compared with ___.", "Progression from ___."),
    ("Substantially worsening since ___.", "Marked progression from ___.", "Clearly worse than on ___."),
    ("Rapidly worsening since ___.", "Dramatic progression from ___.", "Much worse than on ___."),
)
BASES: tuple[tuple[str, ...], ...] = (
    ("The included lung bases are clear.", "Lung bases: clear, no effusion."),
    ("Minor dependent atelectasis at the lung bases.", "Lung bases show minimal atelectasis."),
    ("Mild patchy opacity at the lung bases with a trace effusion.", "Mild basilar opacity is noted."),
    ("Moderate consolidation and moderate effusion at the lung bases.", "Moderate bibasilar consolidation."),
    ("Severe bibasilar consolidation with large effusions.", "Multifocal basilar consolidation, large effusions."),
    ("Extensive confluent consolidation of both bases.", "Diffuse dense opacification of the included lungs."),
)

CHEST = (
    "EXAMINATION:  {exam}\n\nINDICATION:  {patient} with {reason}  // {question}\n\n"
    "FINDINGS:\n\n{findings}\n\nIMPRESSION:\n\n{summary}  {change}\n"
)
ABDOMEN = (
    "EXAMINATION:  CT ABDOMEN AND PELVIS WITH CONTRAST\n\nINDICATION:  {patient} with {reason}  // abscess?\n\n"
    "FINDINGS:\n\n{bases}  The liver enhances evenly.  No hydronephrosis is present.  Bowel loops are of normal "
    "caliber and there is no free air.\n\nIMPRESSION:\n\nNo source of infection in the abdomen.  {bases}\n",
    "EXAMINATION:  CT ABD AND PELVIS W/O CONTRAST\n\nINDICATION:  {patient} with {reason}  // obstruction?\n\n"
    "FINDINGS:\n\n{bases}  Gallbladder is distended without stones.  Small amount of free pelvic fluid.  Mildly "
    "thickened loops of small bowel lie in the ___ quadrant.\n\nIMPRESSION:\n\nNonspecific enteritis.  {bases}\n",
)
HEAD = (
    "EXAMINATION:  CT HEAD W/O CONTRAST\n\nINDICATION:  {patient} with a change in mental status  // bleed?\n\n"
    "FINDINGS:\n\nThere is no hemorrhage, mass effect or shift of midline structures.  Ventricles and sulci fit the "
    "patient's age.  Paranasal sinuses are aerated.\n\nIMPRESSION:\n\nNo acute intracranial abnormality.\n",
    "EXAMINATION:  CT HEAD W/O CONTRAST\n\nINDICATION:  {patient} status post fall  // interval change\n\n"
    "FINDINGS:\n\nA thin extra-axial collection along the ___ convexity measures ___ mm and is stable.  Basal cisterns "
    "are patent.  No new bleeding is found.\n\nIMPRESSION:\n\nStable small subdural collection since ___.\n",
)
