BEGIN TRANSACTION;
CREATE TABLE alembic_version (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num)
);
INSERT INTO "alembic_version" VALUES('v3.2.0.a');
CREATE TABLE diffsift_claim (
	study_id INTEGER NOT NULL, 
	selection_key VARCHAR(16) NOT NULL, 
	selection JSON NOT NULL, 
	token VARCHAR(32) NOT NULL, 
	host VARCHAR(250) NOT NULL, 
	pid INTEGER NOT NULL, 
	process_started FLOAT NOT NULL, 
	since DATETIME NOT NULL, 
	PRIMARY KEY (study_id, selection_key), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
INSERT INTO "diffsift_claim" VALUES(1,'b81b43a607b771cb','[{"backbone": "main", "activation": "activation01", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation10", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation18", "timestep": 300, "weight": 1.0}]','ee8ce9c4b6804db59915bbb6de6d6ff1','old-host',23478,1795755431.44,'2026-11-27 04:58:22.258956');
INSERT INTO "diffsift_claim" VALUES(1,'9afd47c394a693c9','[{"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation11", "timestep": 50, "weight": 1.0}, {"backbone": "main", "activation": "activation12", "timestep": 50, "weight": 1.0}]','b308068fc8674428bff742bafbacbf53','old-host',24582,1795755531.55,'2026-11-27 04:59:14.623717');
CREATE TABLE diffsift_decision (
	study_id INTEGER NOT NULL, 
	position INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	kind VARCHAR(250) NOT NULL, 
	stage VARCHAR(250) NOT NULL, 
	level INTEGER, 
	depth INTEGER NOT NULL, 
	channels INTEGER NOT NULL, 
	stride INTEGER NOT NULL, 
	kept BOOLEAN NOT NULL, 
	reason TEXT NOT NULL, 
	backbone VARCHAR(250) NOT NULL, 
	PRIMARY KEY (study_id, position), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_elimination (
	study_id INTEGER NOT NULL, 
	selection JSON NOT NULL, 
	solves INTEGER NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (study_id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_evaluation (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	selection_key VARCHAR(16) NOT NULL, 
	selection JSON NOT NULL, 
	score FLOAT NOT NULL, 
	fold_scores JSON NOT NULL, 
	channels INTEGER NOT NULL, 
	seconds FLOAT NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (study_id, selection_key), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
INSERT INTO "diffsift_evaluation" VALUES(1,1,'b2e6371c0deb95cd','[{"backbone": "main", "activation": "activation09", "timestep": 50, "weight": 1.0}]',0.25,'[0.25]',8,4.99165000292123295366e-04,'2026-11-27 04:57:37.639070');
INSERT INTO "diffsift_evaluation" VALUES(2,1,'74818fabd70327c3','[{"backbone": "main", "activation": "activation19", "timestep": 300, "weight": 1.0}]',2.66666666666666662965e-01,'[0.26666666666666666]',8,4.27346999913424951955e-04,'2026-11-27 04:57:37.726140');
INSERT INTO "diffsift_evaluation" VALUES(3,1,'dbd329091f6f41f0','[{"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}]',2.16666666666666674068e-01,'[0.21666666666666667]',8,2.7309699999022996053e-04,'2026-11-27 04:57:37.758546');
INSERT INTO "diffsift_evaluation" VALUES(4,1,'cda2ab88387774a0','[{"backbone": "main", "activation": "activation12", "timestep": 300, "weight": 1.0}]',2.66666666666666662965e-01,'[0.26666666666666666]',8,2.75331000011647120118e-04,'2026-11-27 04:57:37.794323');
INSERT INTO "diffsift_evaluation" VALUES(5,1,'4935976c5dfd2191','[{"backbone": "main", "activation": "activation16", "timestep": 50, "weight": 1.0}]',2.16666666666666674068e-01,'[0.21666666666666667]',8,2.76913999641692498698e-04,'2026-11-27 04:57:37.846201');
INSERT INTO "diffsift_evaluation" VALUES(6,1,'a102ea589b9d31b4','[{"backbone": "main", "activation": "activation02", "timestep": 50, "weight": 1.0}]',0.3,'[0.3]',8,3.39876999987609451636e-04,'2026-11-27 04:57:37.894220');
INSERT INTO "diffsift_evaluation" VALUES(7,1,'c2d5fd6c13d991ac','[{"backbone": "main", "activation": "activation06", "timestep": 300, "weight": 1.0}]',2.33333333333333337034e-01,'[0.23333333333333334]',8,3.00348000109806889668e-04,'2026-11-27 04:57:37.934175');
INSERT INTO "diffsift_evaluation" VALUES(8,1,'b81b43a607b771cb','[{"backbone": "main", "activation": "activation01", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation10", "timestep": 300, "weight": 1.0}, {"backbone": "main", "activation": "activation18", "timestep": 300, "weight": 1.0}]',0.65,'[0.65]',24,5.16381000124965794384e-04,'2026-11-27 04:58:22.273727');
CREATE TABLE diffsift_lock (
	study VARCHAR(250) NOT NULL, 
	token VARCHAR(32) NOT NULL, 
	host VARCHAR(250) NOT NULL, 
	pid INTEGER NOT NULL, 
	process_started FLOAT NOT NULL, 
	since DATETIME NOT NULL, 
	PRIMARY KEY (study)
);
CREATE TABLE diffsift_opening (
	id INTEGER NOT NULL, 
	study_id INTEGER NOT NULL, 
	row_names JSON NOT NULL, 
	opened DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_outcome (
	study_id INTEGER NOT NULL, 
	outcome JSON NOT NULL, 
	written DATETIME NOT NULL, 
	PRIMARY KEY (study_id), 
	FOREIGN KEY(study_id) REFERENCES diffsift_study (id)
);
CREATE TABLE diffsift_study (
	id INTEGER NOT NULL, 
	name VARCHAR(250) NOT NULL, 
	identity JSON NOT NULL, 
	runtime JSON NOT NULL, 
	pool JSON NOT NULL, 
	created DATETIME NOT NULL, 
	PRIMARY KEY (id), 
	UNIQUE (name)
);
INSERT INTO "diffsift_study" VALUES(1,'planted','{"protocol": null, "model": {"id": "demo", "revision": null, "variant": null, "dtype": "float32", "image_size": null, "resize": "stretch", "prompt": "", "noise_seed": 0, "noise_seeds": 1, "noise_shared": false, "lora": null, "lora_scale": 1.0, "offload": false, "allow_pickle": false}, "further_models": {}, "joint": {"prompts": [], "image_sizes": [], "noise_seeds": []}, "data": {"kind": "digit-scenes", "train": 60, "validation": 60, "test": 30, "seed": 0, "detail": 3}, "further_data": {}, "task": {"kind": "segmentation", "folds": 3}, "timesteps": [50, 150, 300], "filters": {"rules": "auto", "attention_maps": false, "keep": [], "drop": []}, "limits": {"activations": 4, "channels": null, "passes": null, "operations": null}, "bank": {"pixels_per_image": 64, "balance": 0.5, "max_channels": 256, "fit_images": 64, "seed": 0}, "probe": {"kind": "ridge", "regularisation": 0.0001, "balance": 1.0, "neighbours": 10, "exemplars": 2048}, "study": {"name": "planted", "seed": 0, "sampler": "sift", "objectives": ["score"], "warm_start": [], "skip": []}, "tracking": {}, "content": {}}','{"protocol": null, "model": {"id": "demo", "revision": null, "variant": null, "dtype": "float32", "device": "auto", "image_size": null, "resize": "stretch", "prompt": "", "batch_size": 16, "noise_seed": 0, "noise_seeds": 1, "noise_shared": false, "lora": null, "lora_scale": 1.0, "offload": false, "allow_pickle": false}, "further_models": {}, "joint": {"prompts": [], "image_sizes": [], "noise_seeds": []}, "data": {"kind": "digit-scenes", "train": 60, "validation": 60, "test": 30, "seed": 0, "detail": 3}, "further_data": {}, "task": {"kind": "segmentation", "folds": 3}, "timesteps": [50, 150, 300], "filters": {"rules": "auto", "attention_maps": false, "keep": [], "drop": []}, "limits": {"activations": 4, "channels": null, "passes": null, "operations": null}, "bank": {"pixels_per_image": 64, "balance": 0.5, "max_channels": 256, "fit_images": 64, "seed": 0, "budget_gb": null}, "probe": {"kind": "ridge", "regularisation": 0.0001, "balance": 1.0, "neighbours": 10, "exemplars": 2048}, "study": {"name": "planted", "storage": null, "trials": 20, "timeout": null, "workers": 1, "seed": 0, "sampler": "sift", "objectives": ["score"], "warm_start": [], "skip": [], "confirm": 4, "confirm_probe": "mlp"}, "tracking": {"mlflow": true, "uri": null, "child_runs": 100}}','[["main", "activation00", 50, null], ["main", "activation00", 300, null], ["main", "activation01", 50, null], ["main", "activation01", 300, null], ["main", "activation02", 50, null], ["main", "activation02", 300, null], ["main", "activation03", 50, null], ["main", "activation03", 300, null], ["main", "activation04", 50, null], ["main", "activation04", 300, null], ["main", "activation05", 50, null], ["main", "activation05", 300, null], ["main", "activation06", 50, null], ["main", "activation06", 300, null], ["main", "activation07", 50, null], ["main", "activation07", 300, null], ["main", "activation08", 50, null], ["main", "activation08", 300, null], ["main", "activation09", 50, null], ["main", "activation09", 300, null], ["main", "activation10", 50, null], ["main", "activation10", 300, null], ["main", "activation11", 50, null], ["main", "activation11", 300, null], ["main", "activation12", 50, null], ["main", "activation12", 300, null], ["main", "activation13", 50, null], ["main", "activation13", 300, null], ["main", "activation14", 50, null], ["main", "activation14", 300, null], ["main", "activation15", 50, null], ["main", "activation15", 300, null], ["main", "activation16", 50, null], ["main", "activation16", 300, null], ["main", "activation17", 50, null], ["main", "activation17", 300, null], ["main", "activation18", 50, null], ["main", "activation18", 300, null], ["main", "activation19", 50, null], ["main", "activation19", 300, null]]','2026-11-27 04:57:35.404886');
CREATE TABLE diffsift_version (
	schema INTEGER NOT NULL, 
	PRIMARY KEY (schema)
);
INSERT INTO "diffsift_version" VALUES(2);
CREATE TABLE studies (
	study_id INTEGER NOT NULL, 
	study_name VARCHAR(512) NOT NULL, 
	PRIMARY KEY (study_id)
);
INSERT INTO "studies" VALUES(1,'planted');
CREATE TABLE study_directions (
	study_direction_id INTEGER NOT NULL, 
	direction VARCHAR(8) NOT NULL, 
	study_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	PRIMARY KEY (study_direction_id), 
	UNIQUE (study_id, objective), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_directions" VALUES(1,'MAXIMIZE',1,0);
CREATE TABLE study_system_attributes (
	study_system_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_system_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
CREATE TABLE study_user_attributes (
	study_user_attribute_id INTEGER NOT NULL, 
	study_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (study_user_attribute_id), 
	UNIQUE (study_id, "key"), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "study_user_attributes" VALUES(1,1,'uid','"8854ef1ac754"');
CREATE TABLE trial_heartbeats (
	trial_heartbeat_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	heartbeat DATETIME NOT NULL, 
	PRIMARY KEY (trial_heartbeat_id), 
	UNIQUE (trial_id), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_intermediate_values (
	trial_intermediate_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	step INTEGER NOT NULL, 
	intermediate_value FLOAT, 
	intermediate_value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_intermediate_value_id), 
	UNIQUE (trial_id, step), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_params (
	param_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	param_name VARCHAR(512), 
	param_value FLOAT, 
	distribution_json TEXT, 
	PRIMARY KEY (param_id), 
	UNIQUE (trial_id, param_name), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_params" VALUES(1,1,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(2,1,'slot0',18.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(3,2,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(4,2,'slot0',39.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(5,3,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(6,3,'slot0',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(7,4,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(8,4,'slot0',25.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(9,5,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(10,5,'slot0',32.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(11,6,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(12,6,'slot0',4.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
INSERT INTO "trial_params" VALUES(13,7,'count',1.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 1, "high": 3}}');
INSERT INTO "trial_params" VALUES(14,7,'slot0',13.0,'{"name": "IntDistribution", "attributes": {"log": false, "step": 1, "low": 0, "high": 39}}');
CREATE TABLE trial_system_attributes (
	trial_system_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_system_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
CREATE TABLE trial_user_attributes (
	trial_user_attribute_id INTEGER NOT NULL, 
	trial_id INTEGER, 
	"key" VARCHAR(512), 
	value_json TEXT, 
	PRIMARY KEY (trial_user_attribute_id), 
	UNIQUE (trial_id, "key"), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_user_attributes" VALUES(1,1,'diffsift','{"selection": [{"backbone": "main", "activation": "activation09", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(2,2,'diffsift','{"selection": [{"backbone": "main", "activation": "activation19", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(3,3,'diffsift','{"selection": [{"backbone": "main", "activation": "activation00", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(4,4,'diffsift','{"selection": [{"backbone": "main", "activation": "activation12", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(5,5,'diffsift','{"selection": [{"backbone": "main", "activation": "activation16", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(6,6,'diffsift','{"selection": [{"backbone": "main", "activation": "activation02", "timestep": 50, "weight": 1.0}], "proposed_by": "spread"}');
INSERT INTO "trial_user_attributes" VALUES(7,7,'diffsift','{"selection": [{"backbone": "main", "activation": "activation06", "timestep": 300, "weight": 1.0}], "proposed_by": "spread"}');
CREATE TABLE trial_values (
	trial_value_id INTEGER NOT NULL, 
	trial_id INTEGER NOT NULL, 
	objective INTEGER NOT NULL, 
	value FLOAT, 
	value_type VARCHAR(7) NOT NULL, 
	PRIMARY KEY (trial_value_id), 
	UNIQUE (trial_id, objective), 
	FOREIGN KEY(trial_id) REFERENCES trials (trial_id)
);
INSERT INTO "trial_values" VALUES(1,1,0,0.25,'FINITE');
INSERT INTO "trial_values" VALUES(2,2,0,2.66666666666666662965e-01,'FINITE');
INSERT INTO "trial_values" VALUES(3,3,0,2.16666666666666674068e-01,'FINITE');
INSERT INTO "trial_values" VALUES(4,4,0,2.66666666666666662965e-01,'FINITE');
INSERT INTO "trial_values" VALUES(5,5,0,2.16666666666666674068e-01,'FINITE');
INSERT INTO "trial_values" VALUES(6,6,0,0.3,'FINITE');
INSERT INTO "trial_values" VALUES(7,7,0,2.33333333333333337034e-01,'FINITE');
CREATE TABLE trials (
	trial_id INTEGER NOT NULL, 
	number INTEGER, 
	study_id INTEGER, 
	state VARCHAR(8) NOT NULL, 
	datetime_start DATETIME, 
	datetime_complete DATETIME, 
	PRIMARY KEY (trial_id), 
	FOREIGN KEY(study_id) REFERENCES studies (study_id)
);
INSERT INTO "trials" VALUES(1,0,1,'COMPLETE','2026-11-27 04:57:37.622149','2026-11-27 04:57:37.639525');
INSERT INTO "trials" VALUES(2,1,1,'COMPLETE','2026-11-27 04:57:37.707634','2026-11-27 04:57:37.726441');
INSERT INTO "trials" VALUES(3,2,1,'COMPLETE','2026-11-27 04:57:37.756998','2026-11-27 04:57:37.758737');
INSERT INTO "trials" VALUES(4,3,1,'COMPLETE','2026-11-27 04:57:37.780289','2026-11-27 04:57:37.794519');
INSERT INTO "trials" VALUES(5,4,1,'COMPLETE','2026-11-27 04:57:37.844547','2026-11-27 04:57:37.846404');
INSERT INTO "trials" VALUES(6,5,1,'COMPLETE','2026-11-27 04:57:37.872089','2026-11-27 04:57:37.894438');
INSERT INTO "trials" VALUES(7,6,1,'COMPLETE','2026-11-27 04:57:59.465848','2026-11-27 04:57:59.492482');
CREATE TABLE version_info (
	version_info_id INTEGER NOT NULL, 
	schema_version INTEGER, 
	library_version VARCHAR(256), 
	PRIMARY KEY (version_info_id), 
	CHECK (version_info_id=1)
);
INSERT INTO "version_info" VALUES(1,12,'5.0.0');
CREATE UNIQUE INDEX ix_studies_study_name ON studies (study_name);
CREATE INDEX ix_trials_study_id ON trials (study_id);
COMMIT;
